"""The shim's one loop: descriptors that are ready, timers that are due. Nothing in it ever waits for anything else.

It is epoll itself rather than `selectors`, since a connection must be watched for its end alone (no events asked for) while
nobody wants to read from it.
"""

from __future__ import annotations

import heapq
import select
import time
from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
PEER_ENDED = select.EPOLLRDHUP
GONE = select.EPOLLHUP | select.EPOLLERR
"""Reported whether asked for or not."""


class Timer:
    """A call that will be made once, unless cancelled."""

    __slots__ = ("call", "due", "queued")

    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due = due
        self.queued = due  # its place in the heap, which may be earlier than `due`
        self.call: Callable[[], None] | None = call

    def postpone(self, seconds: float) -> None:
        """To `seconds` from now; never to an earlier time. Costs nothing: the heap is put right when the time comes."""
        self.due = max(self.due, time.monotonic() + seconds)

    def cancel(self) -> None:
        """May be repeated, also after the call was made."""
        self.call = None

    def __lt__(self, other: Timer) -> bool:
        return self.queued < other.queued


class Loop:
    """Calls handlers until `stop`. What was found ready is told only to whoever watched at that time: a descriptor's number
    may have been closed and be another's by the time its turn comes."""

    def __init__(self, on_failure: Callable[[], None]) -> None:
        """`on_failure` is called in the handler of an exception that escaped from a call; the loop goes on."""
        self._on_failure = on_failure
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._new: set[int] = set()  # watched since the kernel was asked last
        self._timers: list[Timer] = []
        self._stopped = False

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Call `handler(events)` when `fd` is ready; a second time for the same `fd` changes events and handler."""
        if fd in self._handlers:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
            self._new.add(fd)
        self._handlers[fd] = handler

    def forget(self, fd: int) -> None:
        """To be called before `fd` is closed: a child may hold a copy, which would keep epoll reporting it."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        timer = Timer(time.monotonic() + seconds, call)
        heapq.heappush(self._timers, timer)
        return timer

    def stop(self) -> None:
        self._stopped = True

    def run(self) -> None:
        while not self._stopped:
            found = self._epoll.poll(self._pause())
            self._new.clear()
            for fd, events in found:
                handler = self._handlers.get(fd)
                if handler is None or fd in self._new:
                    continue
                try:
                    handler(events)
                except Exception:  # noqa: BLE001  # a container must not end by a defect in what looks after it
                    self.forget(fd)  # or it would fail again at once, for ever
                    self._on_failure()
            if self._timers:
                self._run_timers()

    def _pause(self) -> float:
        while self._timers and self._timers[0].call is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0].queued - time.monotonic()) if self._timers else -1

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0].queued <= now:
            timer = heapq.heappop(self._timers)
            if timer.call is None:
                continue
            if timer.due > now:
                timer.queued = timer.due
                heapq.heappush(self._timers, timer)
            else:
                try:
                    timer.call()
                except Exception:  # noqa: BLE001  # as above
                    self._on_failure()
