"""What the daemon and a shim say to each other over `shim.sock`.

A frame is a length (4 bytes, big endian) and a JSON object of that length in UTF-8; `fds` in it is the number of
descriptors that came with it (SCM_RIGHTS), in order. Frames of three kinds:

    shim → daemon   {"hello": 1, "id": …, "shim": pid, "pid": …, …}      first on every connection; 1 is VERSION
    daemon → shim   {"version": 1, "request": n, "do": "signal", …}
    shim → daemon   {"reply": n, "result": …}  or  {"reply": n, "error": {"type": "Conflict", "message": …, "details": {…}}}
    shim → daemon   {"event": "Exited", …}

Shims outlive the daemon that started them, so that a newer daemon meets older shims: fields and requests are only ever
added. A shim answers a request that it does not know with Unsupported. It says hello when the container is made; the first
daemon is told of a failure by a reply to request 0 instead. Both sides bear the other's end between any two
bytes.
"""

from __future__ import annotations

import os
import socket
import struct
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from wharfie.shim import json_text
from wharfie.spi import errors

VERSION = 1
FRAME_LIMIT = 16 * 1024 * 1024
_DESCRIPTORS_A_READ = 32
_HEAD = struct.Struct(">I")
_READ_FLAGS = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)  # an enumeration's `|` would cost each shim its memory
_TRUNCATED = int(socket.MSG_CTRUNC)
_TRACEBACK_LIMIT = 8000

Message = dict[str, Any]


class Broken(Exception):
    """The other side is gone, or does not speak this protocol."""


def encode(message: Mapping[str, Any]) -> bytes:
    body = json_text.encode(message).encode()
    if len(body) > FRAME_LIMIT:
        raise errors.InvalidArgument(f"message of {len(body)} bytes to or from a shim: at most {FRAME_LIMIT} are allowed")
    return _HEAD.pack(len(body)) + body


def send(connection: socket.socket, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
    """Write a whole frame to a blocking socket. Errors: OSError."""
    frame = encode({**message, "fds": len(fds)} if fds else message)
    # The descriptors travel with the first bytes; whatever the first call left follows plainly.
    sent = socket.send_fds(connection, [frame], list(fds), socket.MSG_NOSIGNAL) if fds else 0
    if sent < len(frame):
        connection.sendall(frame[sent:], socket.MSG_NOSIGNAL)


class Reader:
    """Collects frames, and the descriptors that came with them, from a socket; never waits."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray()
        self._fds: list[int] = []

    def read(self) -> list[tuple[Message, list[int]]]:
        """The frames that are complete by now; the caller owns their descriptors. Errors: Broken at the end."""
        try:
            data, fds, flags, _ = socket.recv_fds(self._connection, 256 * 1024, _DESCRIPTORS_A_READ, _READ_FLAGS)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError as error:
            raise Broken(str(error)) from error
        self._fds += fds
        if flags & _TRUNCATED:
            raise Broken("descriptors were lost: no free ones in this process")
        if not data:
            raise Broken("the other side is gone")
        self._buffer += data
        return self._frames()

    def _frames(self) -> list[tuple[Message, list[int]]]:
        frames = []
        while len(self._buffer) >= _HEAD.size:
            (length,) = _HEAD.unpack_from(self._buffer)
            if length > FRAME_LIMIT:
                raise Broken(f"frame of {length} bytes")
            end = _HEAD.size + length
            if len(self._buffer) < end:
                break
            try:
                message = json_text.decode(self._buffer[_HEAD.size : end])
            except ValueError as error:
                raise Broken(f"not JSON: {error}") from error
            del self._buffer[:end]
            if not isinstance(message, dict):
                raise Broken("not a JSON object")
            count = message.pop("fds", 0)
            frames.append((message, self._fds[:count]))
            del self._fds[:count]
        return frames

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()


def error_to_message(error: Exception) -> Message:
    """An error as it crosses to the daemon: by class name and message."""
    if isinstance(error, OSError):
        error = errors.from_os_error(error)
    if isinstance(error, errors.WharfieError):
        return {"type": type(error).__name__, "message": error.message, "details": error.details}
    return {"type": "DriverError", "message": f"{type(error).__name__}: {error}", "details": {}}


def failure_to_message(error: Exception) -> Message:
    """`error_to_message` for what ends a shim, with the place where it came from unless it was raised on purpose."""
    message = error_to_message(error)
    if not isinstance(error, errors.WharfieError):
        text = "".join(traceback.format_exception(error))
        message["details"] = {**message["details"], "traceback": text[-_TRACEBACK_LIMIT:]}
    return message


def error_from_message(message: Mapping[str, Any]) -> errors.WharfieError:
    """The error that `error_to_message` described; a class this side does not know becomes DriverError."""
    kind = getattr(errors, str(message.get("type")), None)
    if not (isinstance(kind, type) and issubclass(kind, errors.WharfieError)):
        kind = errors.DriverError
    return kind(str(message.get("message", "")), details=message.get("details") or {})
