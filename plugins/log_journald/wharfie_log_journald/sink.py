"""The sink: entries in the journal's native protocol (systemd, "Native Journal Protocol"). Standard library only.

A field is `NAME=text` with a line end, or, for bytes of any kind, `NAME`, a line end, eight bytes of length
(little-endian), the bytes, a line end. One datagram is one entry.
"""

from __future__ import annotations

import json
import socket
import time

from wharfie.spi.driver import Strings
from wharfie.spi.log import LogSink, Stream
from wharfie.spi.outflow import Outflow

_SEND_BUFFER = 1024 * 1024
_PRIORITY = {"stdout": b"PRIORITY=6\n", "stderr": b"PRIORITY=3\n"}
_RETRY_SECONDS = 1.0


def field(name: str, value: bytes) -> bytes:
    """One field in the form that keeps every byte."""
    return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"


class JournaldSink(LogSink):
    """Options, all from `JournaldDriver.plan`: socket, fields (JSON), mode, buffer."""

    def __init__(self, options: Strings) -> None:
        fields: dict[str, str] = json.loads(options["fields"])
        self._fixed = b"".join(field(name, value.encode()) for name, value in fields.items())
        self._second, self._stamp = -1, ""
        patience = 0.0 if options["mode"] == "non-blocking" else 1.0
        self._journal = _Journal(options["socket"], limit=int(options["buffer"]), patience=patience)

    def write(self, stream: Stream, data: memoryview, time_ns: int, partial: bool) -> None:
        line = bytes(data)
        if not partial and line[-1:] == b"\n":
            line = line[:-1]
        entry = field("MESSAGE", line) + _PRIORITY[stream] + self._fixed
        entry += f"SYSLOG_TIMESTAMP={self._rfc3339(time_ns)}\n".encode()
        if partial:
            entry += b"CONTAINER_PARTIAL_MESSAGE=true\n"
        self._journal.put(entry)

    def flush(self) -> None:
        self._journal.flush()

    def close(self) -> None:
        try:
            self._journal.finish()
        finally:
            self._journal.close()

    def _rfc3339(self, time_ns: int) -> str:
        second, fraction = divmod(time_ns, 1_000_000_000)
        if second != self._second:  # many lines share one
            self._second, self._stamp = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._stamp}.{fraction:09d}Z"


class _Journal(Outflow):
    """The journal's socket, opened again when the journal was restarted."""

    def __init__(self, path: str, *, limit: int, patience: float) -> None:
        super().__init__(limit=limit, patience=patience)
        self._path = path
        self._not_before = 0.0
        self._socket = self._connected()

    def send(self, message: memoryview) -> int:
        try:
            self._socket.send(message)
        except BlockingIOError:
            raise
        except OSError:
            if time.monotonic() < self._not_before:
                raise
            self._not_before = time.monotonic() + _RETRY_SECONDS
            fresh = self._connected()
            self._socket.close()
            self._socket = fresh
            self._socket.send(message)
        return len(message)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def _connected(self) -> socket.socket:
        """Errors: OSError naming the socket."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            connection.setblocking(False)
            connection.connect(self._path)
        except OSError as error:
            connection.close()
            raise OSError(
                error.errno, f"{error.strerror}: the journal does not listen; is systemd-journald running?", self._path
            ) from error
        return connection
