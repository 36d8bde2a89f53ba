"""For log sinks whose destination may be slow or gone: a bounded buffer before a descriptor.

A sink runs in the shim, and the shim must go on whatever a destination does: signals, exec and the container's end wait
behind a write that waits. So a message is handed to `Outflow`, which never waits long: a destination that is merely slow
slows the container down (`patience`), one that takes nothing for that long is given up until it takes something again, and
what the buffer cannot hold meanwhile is dropped and counted. Standard library only.
"""

from __future__ import annotations

import select
from abc import ABC, abstractmethod
from collections import deque

DEFAULT_LIMIT = 1024 * 1024


class Outflow(ABC):
    """Messages in order on their way out. Used by one thread. Derive and say how one is sent."""

    def __init__(self, *, limit: int = DEFAULT_LIMIT, patience: float = 1.0) -> None:
        """`limit`: bytes kept. `patience`: seconds to wait for a destination that takes nothing; 0: never wait."""
        self.dropped = 0
        self._limit = limit
        self._patience = patience
        self._queue: deque[memoryview] = deque()
        self._size = 0
        self._stuck = False

    @property
    def pending(self) -> int:
        """Messages that wait."""
        return len(self._queue)

    @abstractmethod
    def send(self, message: memoryview) -> int:
        """Send without waiting; how many bytes were taken. Raises BlockingIOError when none can be now, another OSError
        when there is no destination (the message is kept)."""

    @abstractmethod
    def fileno(self) -> int:
        """The descriptor that becomes writable after a BlockingIOError."""

    def put(self, message: bytes) -> None:
        """Add a message and send what can be sent. Errors: OSError (the message was dropped: the buffer is full)."""
        if self._size + len(message) > self._limit and not self._stuck:
            self.flush()
        if self._size + len(message) > self._limit and self._queue:
            self.dropped += 1
            raise OSError(f"the destination takes nothing and the buffer of {self._limit} bytes is full: message dropped")
        self._queue.append(memoryview(message))
        self._size += len(message)

    def flush(self) -> None:
        """Send as much as the destination takes; wait for it only when the buffer is more than half full."""
        self._drain(self._patience if self._size > self._limit // 2 else 0)

    def finish(self) -> None:
        """The last chance: wait as long as `patience` lasts, then drop the rest. Errors: OSError saying how many."""
        self._drain(self._patience or 1.0)
        left = len(self._queue)
        self._queue.clear()
        self._size = 0
        if left:
            self.dropped += left
            raise OSError(f"the destination takes nothing: {left} messages dropped at the end")

    def _drain(self, patience: float) -> None:
        while self._queue:
            try:
                taken = self.send(self._queue[0])
            except BlockingIOError:
                if not self._writable(0 if self._stuck else patience):
                    self._stuck = self._stuck or patience > 0
                    return
                continue
            except OSError:
                return
            self._stuck = False
            self._size -= taken
            if taken == len(self._queue[0]):
                self._queue.popleft()
            else:
                self._queue[0] = self._queue[0][taken:]

    def _writable(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self.fileno(), select.POLLOUT)
        return bool(poll.poll(seconds * 1000))
