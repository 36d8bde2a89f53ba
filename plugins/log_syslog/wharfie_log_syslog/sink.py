"""The sink: what runs in the shim. Standard library and `wharfie.spi` without its hooks only."""

from __future__ import annotations

import os
import socket
import time

from wharfie.spi.driver import Strings
from wharfie.spi.log import LogSink, Stream
from wharfie.spi.outflow import Outflow
from wharfie_log_syslog.message import FORMS, SEVERITIES

LOCAL_SOCKETS = ("/dev/log", "/var/run/syslog", "/var/run/log")
_CONNECT_SECONDS = 10.0
_RECONNECT_SECONDS = 0.5
"""A connection that was lost is made again while the container waits, so not for long."""
_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
_DATAGRAM_LIMIT = 60 * 1024


class SyslogSink(LogSink):
    """Options, all from `SyslogDriver.plan`: scheme, path, host, port, format, facility, tag, mode, buffer, and tls-…"""

    def __init__(self, options: Strings) -> None:
        self._form = FORMS[options["format"]]
        self._facility = int(options["facility"]) * 8
        self._tag = options["tag"]
        scheme = options["scheme"]
        # RFC 5425 counts; the older forms on a stream end with a line end.
        self._counted = scheme == "tcp+tls" and options["format"].startswith("rfc5424")
        self._ended = scheme in ("unix", "tcp", "tcp+tls") and not self._counted
        patience = 0.0 if options["mode"] == "non-blocking" else 1.0
        self._server = _Server(options, limit=int(options["buffer"]), patience=patience)

    def write(self, stream: Stream, data: memoryview, time_ns: int, partial: bool) -> None:
        line = bytes(data).rstrip(b"\r\n")
        message = self._form(self._facility | SEVERITIES[stream], time_ns, self._tag, line)
        if self._counted:
            message = b"%d %s" % (len(message), message)
        elif self._ended:
            message += b"\n"
        self._server.put(message)

    def flush(self) -> None:
        self._server.flush()

    def close(self) -> None:
        try:
            self._server.finish()
        finally:
            self._server.close()


class _Server(Outflow):
    """The connection, made again when it is lost."""

    def __init__(self, options: Strings, *, limit: int, patience: float) -> None:
        super().__init__(limit=limit, patience=patience)
        self._options = options
        self._targets = _targets(options)
        self._failures = 0
        self._not_before = 0.0
        self._socket: socket.socket | None = self._connect(_CONNECT_SECONDS)

    def send(self, message: memoryview) -> int:
        connection = self._socket or self._reconnected()
        try:
            return self._take(connection, message)
        except BlockingIOError:
            raise
        except OSError:
            connection.close()
            self._socket = None
            if self._options["scheme"] in ("", "unixgram", "udp"):  # a restarted server; nothing is half sent
                return self._take(self._reconnected(), message)
            raise

    def fileno(self) -> int:
        return self._socket.fileno() if self._socket is not None else -1

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _take(self, connection: socket.socket, message: memoryview) -> int:
        if connection.type == socket.SOCK_DGRAM:
            connection.send(message[:_DATAGRAM_LIMIT])
            return len(message)
        try:
            return connection.send(message)
        except OSError as error:
            if type(error).__name__ in ("SSLWantWriteError", "SSLWantReadError"):  # ssl may not be imported
                raise BlockingIOError(*error.args) from error
            raise

    def _reconnected(self) -> socket.socket:
        """Errors: OSError: not yet."""
        now = time.monotonic()
        if now < self._not_before:
            raise ConnectionError("the syslog server is down")
        try:
            connection = self._socket = self._connect(_RECONNECT_SECONDS)
        except OSError:
            self._not_before = time.monotonic() + _PAUSES[min(self._failures, len(_PAUSES) - 1)]
            self._failures += 1
            raise
        self._failures = 0
        return connection

    def _connect(self, seconds: float) -> socket.socket:
        failure: OSError | None = None
        for family, kind, target in self._targets:
            connection = socket.socket(family, kind | socket.SOCK_CLOEXEC)
            try:
                connection.settimeout(seconds)
                connection.connect(target)
                if self._options["scheme"] == "tcp+tls":
                    connection = self._encrypted(connection)
                connection.setblocking(False)
                return connection
            except OSError as error:
                connection.close()
                failure = error
        raise OSError(f"syslog server {self._name()}: {failure}")

    def _encrypted(self, plain: socket.socket) -> socket.socket:
        import ssl  # large, and few containers need it

        options = self._options
        context = ssl.create_default_context(cafile=options["tls-ca"] or None)
        if options["tls-skip-verify"] == "true":
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if options["tls-cert"]:
            context.load_cert_chain(options["tls-cert"], options["tls-key"] or None)
        return context.wrap_socket(plain, server_hostname=options["host"])

    def _name(self) -> str:
        options = self._options
        where = options["path"] or f"{options['host']}:{options['port']}"
        return f"{options['scheme']}://{where}" if options["scheme"] else "of this host"


def _targets(options: Strings) -> list[tuple[int, int, str | tuple[object, ...]]]:
    """Where to connect, the best first. Names are looked up here, once: a resolver that hangs must not hang a container."""
    scheme = options["scheme"]
    if scheme == "":
        return [(socket.AF_UNIX, socket.SOCK_DGRAM, path) for path in LOCAL_SOCKETS if os.path.exists(path)] or [  # noqa: PTH110
            (socket.AF_UNIX, socket.SOCK_DGRAM, LOCAL_SOCKETS[0])
        ]
    if scheme in ("unix", "unixgram"):
        kind = socket.SOCK_STREAM if scheme == "unix" else socket.SOCK_DGRAM
        return [(socket.AF_UNIX, kind, options["path"])]
    kind = socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM
    found = socket.getaddrinfo(options["host"], int(options["port"]), type=kind)
    return [(family, kind, target) for family, kind, _, _, target in found]
