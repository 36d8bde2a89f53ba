"""HTTP/1.1 as a client of one kind of server needs it (RFC 9112): requests, the three kinds of bodies, hijacking."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping

from wharfie.client.errors import Unreachable

BLOCK = 64 * 1024
HEAD_LIMIT = 256 * 1024

Body = bytes | Iterable[bytes]
"""Bytes go with their length, anything else in chunks as it comes."""


class Connection:
    """One connection, one request at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    def request(self, method: str, target: str, headers: Mapping[str, str], body: Body | None) -> Response:
        """Send a request and read the head of its answer. Errors: Unreachable (the connection broke)."""
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        if isinstance(body, bytes):
            lines.append(f"Content-Length: {len(body)}")
        elif body is not None:
            lines.append("Transfer-Encoding: chunked")
        elif method != "GET":
            lines.append("Content-Length: 0")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode()
        try:
            self._send(head, body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # a server that refuses a body may answer before it has read it
        return self._response(method)

    def readline(self) -> bytes:
        """A line without its end."""
        while b"\n" not in self._buffer:
            if len(self._buffer) > HEAD_LIMIT:
                raise Unreachable("the daemon's answer is not HTTP: a line of its head does not end")
            data = self._receive()
            if not data:
                raise Unreachable("the daemon closed the connection in the middle of an answer")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.rstrip(b"\r")

    def read_some(self, limit: int) -> bytes:
        """At least one byte and at most `limit`; none: the other side has closed."""
        data = self._buffer or self._receive()
        self._buffer = data[limit:]
        return data[:limit]

    def take_buffer(self) -> bytes:
        """What was received behind the head: the beginning of a hijacked stream."""
        data, self._buffer = self._buffer, b""
        return data

    def is_closed(self) -> bool:
        """Whether the other side has closed an idle connection."""
        try:
            return not self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        self.sock.close()

    def _send(self, head: bytes, body: Body | None) -> None:
        if body is None or isinstance(body, bytes):
            self.sock.sendall(head + (body or b""))
            return
        self.sock.sendall(head)
        for block in body:
            if block:
                self.sock.sendall(b"%x\r\n%b\r\n" % (len(block), block))
        self.sock.sendall(b"0\r\n\r\n")

    def _receive(self) -> bytes:
        try:
            return self.sock.recv(BLOCK)
        except ConnectionError:
            return b""

    def _response(self, method: str) -> Response:
        while True:
            version, _, rest = self.readline().partition(b" ")
            status = rest[:3]
            if not version.startswith(b"HTTP/1.") or not status.isdigit():
                raise Unreachable("something answers at this address, but not in HTTP; is TLS needed there?")
            headers: dict[str, str] = {}
            while line := self.readline():
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.strip().lower()] = value.strip()
            if status != b"100":
                return Response(self, method, int(status), headers)


class Response:
    """An answer whose head has been read. The body is read once, by one of the methods."""

    def __init__(self, connection: Connection, method: str, status: int, headers: dict[str, str]) -> None:
        self.connection = connection
        self.status = status
        self.headers = headers
        self._empty = method == "HEAD" or status in (101, 204, 304)

    @property
    def reusable(self) -> bool:
        """Whether the connection can take another request once the body was read."""
        framed = self._empty or "content-length" in self.headers or self._chunked
        return framed and self.status != 101 and self.headers.get("connection", "").lower() != "close"

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.blocks())

    def blocks(self) -> Iterator[bytes]:
        """The body in pieces, as they come. Errors: Unreachable (it broke off)."""
        if self._empty:
            return
        if self._chunked:
            while size := int(self.connection.readline().partition(b";")[0] or b"0", 16):
                yield from self._exactly(size)
                self.connection.readline()
            while self.connection.readline():
                pass
        elif "content-length" in self.headers:
            yield from self._exactly(int(self.headers["content-length"]))
        else:
            while data := self.connection.read_some(BLOCK):
                yield data

    def lines(self) -> Iterator[bytes]:
        """The body line by line, as they come, without empty ones."""
        rest = b""
        for block in self.blocks():
            *lines, rest = (rest + block).split(b"\n")
            yield from filter(None, (line.strip() for line in lines))
        if rest.strip():
            yield rest.strip()

    @property
    def _chunked(self) -> bool:
        return self.headers.get("transfer-encoding", "").lower() == "chunked"

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            data = self.connection.read_some(min(size, BLOCK))
            if not data:
                raise Unreachable("the daemon closed the connection in the middle of an answer")
            size -= len(data)
            yield data
