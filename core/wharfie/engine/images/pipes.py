"""Streams between a driver's worker thread and ours.

The rule of the contracts is that who opened a descriptor closes it. A driver's call may go on in its thread after its
caller was cancelled, so the end that a driver works on is closed when the call is really over (`lend`); to make it end, the
other end is closed. A call that hangs past its deadline keeps its descriptor for good: closing it under a thread that may
come back would let that thread write into whatever gets the number next.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import struct
import termios
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from wharfie.spi.errors import Cancelled, DeadlineExceeded

T = TypeVar("T")

CHUNK = 1 << 18
_CAPACITY = 1 << 20
_GLANCE_MS = 250
"""How often a thread that waits for the other end looks whether it is still wanted."""

_LENT: set[asyncio.Task[Any]] = set()


def pipe() -> tuple[int, int]:
    """A roomy pipe: read end, write end."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # the user's allowance of pipe memory is used up: a small one does too
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _CAPACITY)
    return reading, writing


async def lend(descriptor: int, call: Coroutine[Any, Any, T], *, end: Callable[[], None], patience: float = 0.0) -> T:
    """Await a driver's call that works on `descriptor`, and close that when the call is over, even if we are cancelled.

    When cancelled: `end` makes the stream end, and the call gets `patience` seconds to notice.
    """
    task = asyncio.get_running_loop().create_task(call)
    _LENT.add(task)
    task.add_done_callback(lambda done: _give_back(done, descriptor))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        end()
        if patience and not task.done():
            await asyncio.wait([task], timeout=patience)
        raise


def _give_back(task: asyncio.Task[Any], descriptor: int) -> None:
    _LENT.discard(task)
    if task.cancelled() or not isinstance(task.exception(), DeadlineExceeded):
        os.close(descriptor)


class Stop:
    """Tells a thread of ours that its work is not wanted any more."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def check(self) -> None:
        if self._event.is_set():
            raise Cancelled("the caller of this operation is gone")


def read_some(descriptor: int, buffer: memoryview, stop: Stop) -> int:
    """Bytes read into `buffer`; 0 at the end of the stream. Errors: Cancelled."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    while not poller.poll(_GLANCE_MS):
        stop.check()
    return os.readv(descriptor, [buffer])


def write_within(descriptor: int, data: bytes, seconds: float) -> None:
    """Write a few bytes (at most PIPE_BUF, pipe(7)) to a non-blocking end, if it has room in that time. Errors: OSError."""
    poller = select.poll()
    poller.register(descriptor, select.POLLOUT)
    if poller.poll(round(seconds * 1000)):
        os.write(descriptor, data)


def write_all(descriptor: int, data: memoryview | bytes, stop: Stop) -> None:
    """Write everything to a non-blocking end. Errors: Cancelled, BrokenPipeError (nobody reads any more)."""
    for _ in written(descriptor, data, stop):
        pass


def written(descriptor: int, data: memoryview | bytes, stop: Stop) -> Iterator[int]:
    """Write everything, and yield the bytes that each write(2) took. Errors: as `write_all`."""
    view = memoryview(data)
    poller = select.poll()
    poller.register(descriptor, select.POLLOUT)
    while view:
        try:
            count = os.write(descriptor, view)
        except BlockingIOError:
            while not poller.poll(_GLANCE_MS):
                stop.check()
            continue
        view = view[count:]
        yield count


def unread(descriptor: int) -> int:
    """Bytes in a pipe that nobody has read yet (ioctl_pipe(2), FIONREAD)."""
    return int(struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))[0])
