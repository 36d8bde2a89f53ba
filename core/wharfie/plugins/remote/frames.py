"""Messages on a stream socket: four bytes of length, JSON, and the descriptors that came with the first byte."""

from __future__ import annotations

import array
import json
import os
import socket
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

from wharfie.spi.errors import InvalidArgument

Message = dict[str, Any]

FRAME_LIMIT = 64 * 1024 * 1024
"""No message is larger; streams travel as descriptors."""
DESCRIPTORS = 64
"""At most so many descriptors in one message."""

_CHUNK = 256 * 1024
_LENGTH = 4
_ANCILLARY = socket.CMSG_SPACE(DESCRIPTORS * array.array("i").itemsize)


class Broken(Exception):
    """The other side has gone, or does not keep to the format."""


def pack(message: Message) -> bytes:
    """A message as bytes. Errors: InvalidArgument (something in it is no JSON, or it is too large)."""
    try:
        data = json.dumps(message, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"it cannot be sent to another process: {error}") from None
    if len(data) > FRAME_LIMIT:
        raise InvalidArgument(f"it has {len(data)} bytes, and more than {FRAME_LIMIT} cannot be sent to another process")
    return len(data).to_bytes(_LENGTH) + data


class Channel:
    """One end of a socket pair. `send` from any thread; `receive` from one."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sending = threading.Lock()
        self._buffer = bytearray()
        self._descriptors: deque[int] = deque()

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, packed: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a packed message whose field `descriptors` says how many come with it. Errors: Broken."""
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            with self._sending:
                sent = self._sock.sendmsg([packed], ancillary)
                if sent < len(packed):
                    self._sock.sendall(memoryview(packed)[sent:])
        except OSError as error:
            raise Broken(str(error)) from error

    def receive(self) -> list[tuple[Message, list[int]]]:
        """Wait for bytes; the messages that are complete now, each with its descriptors, which the caller closes.

        Errors: Broken (the end of the stream, too).
        """
        try:
            data, ancillary, _, _ = self._sock.recvmsg(_CHUNK, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise Broken(str(error)) from error
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(content[: len(content) - len(content) % received.itemsize])
                self._descriptors.extend(received)
        if not data:
            raise Broken("the other side has closed the connection")
        self._buffer += data
        messages = []
        while (message := self._take()) is not None:
            messages.append(message)
        return messages

    def close(self) -> None:
        """Close the socket and the descriptors that nobody took. May be repeated."""
        self._sock.close()
        while self._descriptors:
            os.close(self._descriptors.popleft())

    def shut(self) -> None:
        """End both directions: whoever waits in `receive`, here or there, gets Broken. From any thread."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it has ended already

    def _take(self) -> tuple[Message, list[int]] | None:
        if len(self._buffer) < _LENGTH:
            return None
        length = int.from_bytes(self._buffer[:_LENGTH])
        if length > FRAME_LIMIT:
            raise Broken(f"a message of {length} bytes")
        if len(self._buffer) < _LENGTH + length:
            return None
        data = bytes(self._buffer[_LENGTH : _LENGTH + length])
        del self._buffer[: _LENGTH + length]
        try:
            message = json.loads(data)
            descriptors = [self._descriptors.popleft() for _ in range(message.get("descriptors", 0))]
        except (ValueError, RecursionError, AttributeError, TypeError, IndexError) as error:
            raise Broken(f"no message: {error}") from error
        return message, descriptors
