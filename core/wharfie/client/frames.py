"""Docker's multiplexed stream: 8 bytes of head (stream, three zeros, length big-endian), then the payload."""

from __future__ import annotations

from collections.abc import Iterator

STDIN, STDOUT, STDERR, SYSTEM_ERROR = 0, 1, 2, 3
HEAD = 8


class Demultiplexer:
    """Takes bytes as they come and gives (stream, payload) as far as they reach; a payload may come in several pieces."""

    def __init__(self) -> None:
        self._buffer = b""
        self._stream = STDOUT
        self._left = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        self._buffer += data
        while self._buffer:
            if self._left:
                piece, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
                self._left -= len(piece)
                yield self._stream, piece
            elif len(self._buffer) >= HEAD:
                self._stream = self._buffer[0]
                self._left = int.from_bytes(self._buffer[4:HEAD], "big")
                self._buffer = self._buffer[HEAD:]
            else:
                return
