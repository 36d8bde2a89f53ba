"""Where the daemon is: `unix:///path` or `tcp://host:port`, as DOCKER_HOST and `--host` write it."""

from __future__ import annotations

import os
import socket

from wharfie.client.errors import Unreachable

DEFAULT = "unix:///var/run/docker.sock"
PLAIN_PORT = 2375


def default_host() -> str:
    """DOCKER_HOST, else the socket that both wharfied and dockerd listen on."""
    return os.environ.get("DOCKER_HOST") or DEFAULT


def connect(host: str) -> socket.socket:
    """A connected stream socket. Errors: Unreachable, which says what to do."""
    scheme, separator, rest = host.partition("://")
    if not separator or scheme not in ("unix", "tcp") or not rest:
        raise Unreachable(f"cannot use the address {host!r}: write unix:///path/to/socket or tcp://host:port")
    try:
        if scheme == "unix":
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.connect(rest)
            except OSError:
                sock.close()
                raise
            return sock
        name, port = split_port(rest)
        sock = socket.create_connection((name, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    except PermissionError:
        raise Unreachable(
            f"permission denied at {host}: only root and the socket's group may use it; try sudo, or join the group"
        ) from None
    except OSError as error:
        raise Unreachable(
            f"Cannot connect to the Wharfie daemon at {host}: {error.strerror or error}. Is it running? "
            "Start it as root with `wharfied`, or name another with --host or DOCKER_HOST."
        ) from None


def split_port(address: str) -> tuple[str, int]:
    """Of "host:port", "host" or "[::1]:port". Errors: Unreachable."""
    address = address.rstrip("/")
    name, separator, port = address.rpartition(":")
    if not separator or address.endswith("]"):
        name, port = address, str(PLAIN_PORT)
    if not port.isdigit():
        raise Unreachable(f"cannot use the address tcp://{address}: the port has to be a number")
    return name.strip("[]"), int(port)
