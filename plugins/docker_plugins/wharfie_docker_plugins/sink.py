"""The sink of a legacy LogDriver: what runs in the shim. Standard library and `wharfie.spi` without its hooks only.

It makes the FIFO, tells the plugin to read it (StartLogging), writes entries, and ends with StopLogging. The FIFO is held
open for reading too: a plugin that goes away and comes back loses nothing that fits into the pipe and the buffer, and a
plugin that is slow or gone freezes no container (`wharfie.spi.outflow`).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import stat
import struct

from wharfie.spi.driver import Strings
from wharfie.spi.log import LogSink, Stream
from wharfie.spi.outflow import Outflow
from wharfie_docker_plugins.entries import encode

_PIPE_SIZE = 1024 * 1024
_CONNECT_SECONDS = 1.0
_START_SECONDS = 10.0
_STOP_SECONDS = 3.0
_ANSWER_LIMIT = 64 * 1024


class _Fifo(Outflow):
    def __init__(self, path: str, *, limit: int, patience: float) -> None:
        super().__init__(limit=limit, patience=patience)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # above the limit for this user: the default size does
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)

    def send(self, message: memoryview) -> int:
        return os.write(self._fd, message)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)


class FifoSink(LogSink):
    """Options, all from `LegacyLog.plan`: fifo, info (JSON), socket or host and port (and tls, JSON), buffer, mode."""

    def __init__(self, options: Strings) -> None:
        self._options = options
        self._path = options["fifo"]
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISFIFO(os.stat(self._path, follow_symlinks=False).st_mode):
                os.unlink(self._path)  # noqa: PTH108
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self._path, 0o600)
        patience = 0.0 if options["mode"] == "non-blocking" else 1.0
        self._fifo = _Fifo(self._path, limit=int(options["buffer"]), patience=patience)
        try:
            request = {"File": self._path, "Info": json.loads(options["info"])}
            self._tell("StartLogging", request, _START_SECONDS)
        except BaseException:
            self._fifo.close()
            raise

    def write(self, stream: Stream, data: memoryview, time_ns: int, partial: bool) -> None:
        line = bytes(data)
        if not partial and line[-1:] == b"\n":
            line = line[:-1]
        self._fifo.put(encode(stream, time_ns, line, partial))

    def flush(self) -> None:
        self._fifo.flush()

    def close(self) -> None:
        """The plugin reads all that is in the pipe before it answers StopLogging."""
        try:
            self._fifo.finish()
        finally:
            self._fifo.close()
            try:
                self._tell("StopLogging", {"File": self._path}, _STOP_SECONDS)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path)  # noqa: PTH108

    def _tell(self, method: str, document: object, seconds: float) -> None:
        """A small HTTP client: http.client and what it imports would cost each shim a megabyte. Errors: OSError."""
        body = json.dumps(document).encode()
        head = (
            f"POST /LogDriver.{method} HTTP/1.1\r\nHost: plugin\r\nAccept: application/vnd.docker.plugins.v1+json\r\n"
            f"Content-Type: application/vnd.docker.plugins.v1+json\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        with self._connect() as connection:
            connection.settimeout(seconds)
            connection.sendall(head.encode() + body)
            answer = b""
            while len(answer) < _ANSWER_LIMIT and (piece := connection.recv(4096)):
                answer += piece
                if _is_whole(answer):
                    break
        _check(method, answer)

    def _connect(self) -> socket.socket:
        options = self._options
        if options.get("socket"):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                # The kernel's own patience with a full queue; Python's timeout would give up at once.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 1, 0))
                connection.connect(options["socket"])
            except OSError:
                connection.close()
                raise
            return connection
        plain = socket.create_connection((options["host"], int(options["port"])), _CONNECT_SECONDS)
        if "tls" not in options:
            return plain
        import ssl  # plugins on the network are rare, and this is large

        tls = json.loads(options["tls"])
        context = ssl.create_default_context(cafile=tls["ca"] or None)
        if tls["insecure"]:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if tls["cert"]:
            context.load_cert_chain(tls["cert"], tls["key"] or None)
        return context.wrap_socket(plain, server_hostname=options["host"])


def _is_whole(answer: bytes) -> bool:
    """With a declared length the answer has an end before the connection has."""
    head, separator, body = answer.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if separator and name == b"content-length" and value.strip().isdigit():
            return len(body) >= int(value)
    return bool(separator) and body.endswith(b"0\r\n\r\n")


def _check(method: str, answer: bytes) -> None:
    """Errors: OSError with the plugin's own words."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    start, end = body.find(b"{"), body.rfind(b"}")
    try:
        document = json.loads(body[start : end + 1]) if start >= 0 else {}
    except ValueError:
        document = {}
    reason = str(document.get("Err") or "") if isinstance(document, dict) else ""
    if status != [b"200"] or reason:
        text = reason or body[:200].decode(errors="replace").strip() or head.split(b"\r\n")[0].decode(errors="replace")
        raise OSError(f"LogDriver.{method}: {text or 'the plugin closed the connection without an answer'}")
