"""The talk between the shim and a process that it makes: one JSON object a message on a SOCK_SEQPACKET pair.

The child's end closes at execve, so the end of the stream is the news that the program runs.
"""

from __future__ import annotations

import json
import math
import os
import select
import socket
import struct
from collections.abc import Mapping
from typing import Any, Final

from wharfie.spi.errors import DriverError
from wharfie_runtime_native import errors

_SIZE: Final = 65536
_SECONDS: Final = 20
"""How long a step of the child may take. A process inside can stop one that enters its pid namespace, for ever."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Parent's and child's end, both close-on-exec. The limit of time is the socket's: it goes along to another process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    limit(ours)
    return ours, theirs


def limit(end: socket.socket, more: float | None = 0) -> None:
    """Let no reading from this end take longer than a step may, and `more` seconds for what is run meanwhile; with None
    as long as it likes."""
    seconds = 0 if more is None else _SECONDS + math.ceil(more)  # 0: no limit
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", seconds, 0))


def is_closed(end: socket.socket) -> bool:
    """Whether nobody is at the other end any more."""
    try:
        return not end.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
    except BlockingIOError:
        return False


def has_news(end: socket.socket | int) -> bool:
    """Whether `receive` would return, or raise, at once."""
    return bool(select.select([end], [], [], 0)[0])


def send(end: socket.socket, **message: Any) -> None:
    end.send(json.dumps(message).encode())


def fail(end: socket.socket, error: BaseException) -> None:
    """Tell the parent why there will be no program. It may be gone."""
    try:
        end.send(errors.encode(error)[:_SIZE])
    except OSError:
        pass


def receive(end: socket.socket | int) -> Mapping[str, Any] | None:
    """The next message; None when the other side has closed. Errors: the one that the child sent,
    DriverError (it does not go on)."""
    try:
        data = os.read(end if isinstance(end, int) else end.fileno(), _SIZE)
    except BlockingIOError:
        raise DriverError("the process that was being made did not go on in time") from None
    if not data:
        return None
    message: Mapping[str, Any] = json.loads(data)
    if "error" in message:
        raise errors.decode(message["error"], message["message"])
    return message


def step(end: socket.socket | int) -> tuple[str, Any]:
    """The next message's key and value. Errors: the child's, or DriverError (it died without a word)."""
    message = receive(end)
    if message is None:
        raise DriverError("the container's first process died while it was being made")
    return next(iter(message.items()))
