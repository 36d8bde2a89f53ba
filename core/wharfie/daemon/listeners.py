"""The sockets that the daemon listens on: unix, TCP, and those that systemd hands over."""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from wharfie.api.tls import server_context
from wharfie.daemon.config import DEFAULT_GROUP, DaemonConfig, Mirror
from wharfie.spi.errors import Conflict, InvalidArgument

UNIX_MODE = 0o660
PLAIN_PORT, TLS_PORT = 2375, 2376
SYSTEMD_FIRST = 3  # sd_listen_fds(3)
BACKLOG = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A listening socket; clients wait in its queue until the API accepts. `path`: the file to remove at the end."""

    host: str
    socket: socket.socket
    tls: ssl.SSLContext | None = None
    path: Path | None = None

    def close(self) -> None:
        """May be repeated."""
        self.socket.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def check_hosts(config: DaemonConfig) -> None:
    """Errors: InvalidArgument for an address of a form that is not known."""
    for host in config.hosts:
        scheme, address = _split(host)
        if scheme == "tcp":
            _tcp_address(host, address, PLAIN_PORT)
    if config.mirror is not None:
        _address("mirror.listen", config.mirror.listen)
    if config.metrics_addr:
        _address("metrics-addr", config.metrics_addr, anywhere=True)


def _split(host: str) -> tuple[str, str]:
    scheme, separator, address = host.partition("://")
    if not separator or scheme not in ("unix", "tcp", "fd"):
        raise InvalidArgument(f'hosts: "{host}" is not valid: expected unix://PATH, tcp://ADDRESS:PORT or fd://')
    if scheme == "unix" and not address.startswith("/"):
        raise InvalidArgument(f'hosts: "{host}" is not valid: a unix socket needs an absolute path')
    return scheme, address


def _tcp_address(host: str, address: str, default: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{address}")
        port = parts.port
    except ValueError:
        raise InvalidArgument(f'hosts: "{host}" is not valid: expected tcp://ADDRESS:PORT') from None
    if parts.path or parts.query or parts.username:
        raise InvalidArgument(f'hosts: "{host}" is not valid: expected tcp://ADDRESS:PORT')
    return parts.hostname or "127.0.0.1", default if port is None else port


def open_listeners(config: DaemonConfig) -> list[Listener]:
    """Listen on all addresses. Errors: InvalidArgument, Conflict (in use), OSError."""
    context = tls_context(config)
    opened: list[Listener] = []
    try:
        for host in config.hosts:
            scheme, address = _split(host)
            if scheme == "unix":
                opened.append(_open_unix(host, Path(address), config.group))
            elif scheme == "fd":
                opened.extend(_inherited(host))
            else:
                name, port = _tcp_address(host, address, TLS_PORT if context else PLAIN_PORT)
                opened.extend(_open_tcp(host, name, port, context))
    except BaseException:
        for listener in opened:
            listener.close()
        raise
    return opened


def open_mirror(config: DaemonConfig) -> list[Listener]:
    """Listen where others may pull images. Errors: InvalidArgument, Conflict (in use)."""
    if config.mirror is None:
        return []
    name, port = _address("mirror.listen", config.mirror.listen)
    return list(_open_tcp(f"mirror: {config.mirror.listen}", name, port, mirror_context(config.mirror)))


def open_metrics(config: DaemonConfig) -> list[Listener]:
    """Listen where Prometheus may ask. Errors: InvalidArgument, Conflict (in use)."""
    if not config.metrics_addr:
        return []
    name, port = _address("metrics-addr", config.metrics_addr, anywhere=True)
    return list(_open_tcp(f"metrics-addr: {config.metrics_addr}", name, port, None))


def _address(key: str, text: str, *, anywhere: bool = False) -> tuple[str, int]:
    """`anywhere`: without an address, as in ":9323", all of this host's are meant, and the address is empty."""
    try:
        parts = urlsplit(f"//{text}")
        port, name = parts.port, parts.hostname or ""
    except ValueError:
        port = None
    if port is None or not (name or anywhere) or parts.path or parts.query or parts.fragment or parts.username is not None:
        raise InvalidArgument(f'{key}: "{text}" is not valid: expected ADDRESS:PORT')
    return name, port


def mirror_context(mirror: Mirror | None) -> ssl.SSLContext | None:
    """Errors: InvalidArgument naming the file."""
    if mirror is None or not mirror.tlscert:
        return None
    return _context(mirror.tlscert, mirror.tlskey, mirror.tlscacert, "mirror.")


def tls_context(config: DaemonConfig) -> ssl.SSLContext | None:
    """The TLS context of all TCP listeners; None without TLS. Errors: InvalidArgument naming the file."""
    if not config.uses_tls:
        return None
    folder = Path(os.environ.get("DOCKER_CERT_PATH") or Path("~/.docker").expanduser())
    cert, key = config.tlscert or str(folder / "cert.pem"), config.tlskey or str(folder / "key.pem")
    ca = (config.tlscacert or str(folder / "ca.pem")) if config.tlsverify else ""
    return _context(cert, key, ca, "")


def _context(cert: str, key: str, ca: str, prefix: str) -> ssl.SSLContext:
    for name, path in (("tlscert", cert), ("tlskey", key), ("tlscacert", ca)):
        if path and not os.access(path, os.R_OK):
            raise InvalidArgument(f"could not load X509 key pair: {prefix}{name}: {path} cannot be read")
    try:
        return server_context(cert, key, ca)
    except (ssl.SSLError, OSError) as error:
        raise InvalidArgument(f"could not load X509 key pair ({cert}, {key}): {error}") from None


def _open_unix(host: str, path: Path, group: str | None) -> Listener:
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(host, path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o777 & ~UNIX_MODE)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        os.chown(path, -1, _group_id(group))
        path.chmod(UNIX_MODE)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return Listener(host=host, socket=listener, path=path)


def _remove_stale(host: str, path: Path) -> None:
    """A socket that nobody listens on was left by a killed daemon. Anything else is not ours to remove."""
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_socket():
        raise Conflict(f"cannot listen on {host}: {path} exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except OSError as error:
            raise Conflict(f"cannot listen on {host}: {path} exists: {error}") from None
        else:
            raise Conflict(f"cannot listen on {host}: another daemon answers there; stop it, or choose another --host")


def _group_id(group: str | None) -> int:
    """The socket's group: the one that was asked for, otherwise `docker` if it exists, otherwise root."""
    name = DEFAULT_GROUP if group is None else group
    if not name:
        return 0
    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        if group is None:
            return 0
        raise InvalidArgument(f"group: there is no group {name} on this host; make it with groupadd {name}") from None


def _open_tcp(host: str, name: str, port: int, context: ssl.SSLContext | None) -> Iterable[Listener]:
    try:
        found = socket.getaddrinfo(name or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise InvalidArgument(f'hosts: "{host}" is not valid: {error}') from None
    opened: list[Listener] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listener = socket.socket(family, kind, protocol)
            opened.append(Listener(host=host, socket=listener, tls=context))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
    except OSError as error:
        with contextlib.suppress(OSError):
            for listener_ in opened:
                listener_.close()
        raise Conflict(f"cannot listen on {host}: {error}") from None
    return opened


def _inherited(host: str) -> list[Listener]:
    """Sockets from systemd."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise InvalidArgument(f"{host}: no sockets were handed over by systemd")
    count = int(os.environ.get("LISTEN_FDS", "0"))
    return [
        Listener(host=host, socket=socket.socket(fileno=descriptor))
        for descriptor in range(SYSTEMD_FIRST, SYSTEMD_FIRST + count)
    ]
