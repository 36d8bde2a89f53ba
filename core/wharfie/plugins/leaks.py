"""Which driver keeps threads and descriptors that it should have given back.

A driver in a process of its own is measured exactly: what the process has now against what it had after `open`. In the
daemon many parties open things at the same time, so a call is looked at only while no other call into a driver runs,
and only what is still there later counts. A single find proves nothing; a driver is named when its finds add up.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from wharfie.plugins.worker import Job

T = TypeVar("T")

THREADS = 8
DESCRIPTORS = 16
"""So many that came and stayed make a leak: caches and pools are smaller, leaks grow."""

_KEPT = 256


class Watch:
    """Of all drivers in this process. Off, it costs nothing; on, some 50 µs a call."""

    def __init__(self) -> None:
        self.wanted = 0  # by how many; see `on`
        self._lock = threading.Lock()
        self._running: set[Job] = set()
        self._begun = 0  # calls so far, to see whether another one ran meanwhile

    @property
    def on(self) -> bool:
        """Does anybody want to know?"""
        return self.wanted > 0

    def around(self, findings: Findings, job: Job, work: Callable[[], T]) -> T:
        """In a worker: do `work`, and note what it left behind if nobody else was at work. Calls that were given up and
        hang do not count: they do nothing."""
        with self._lock:
            alone = all(other.lost for other in self._running)
            self._running.add(job)
            self._begun += 1
            begun = self._begun
        before = (_descriptors(), _threads()) if alone else None
        try:
            return work()
        finally:
            after = (_descriptors(), _threads()) if before else None
            with self._lock:
                self._running.discard(job)
                alone = alone and self._begun == begun
            if alone and before and after:
                findings.add(after[0].items() - before[0].items(), after[1] - before[1])


class Findings:
    """Of one driver in this process."""

    def __init__(self) -> None:
        self._descriptors: dict[int, str] = {}
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

    def add(self, descriptors: set[tuple[int, str]], threads: set[threading.Thread]) -> None:
        if len(self._descriptors) < _KEPT:
            self._descriptors.update(descriptors)
        for thread in threads:
            self._threads.add(thread)

    def leaks(self) -> Sequence[str]:
        """Sentences about what is still there; empty when there is too little to speak of."""
        now = _descriptors()
        left = [target for number, target in self._descriptors.items() if now.get(number) == target]
        self._descriptors = {number: target for number, target in self._descriptors.items() if now.get(number) == target}
        alive = sorted(thread.name for thread in self._threads if thread.is_alive())
        return _sentences(len(left), left[-1] if left else "", len(alive), alive[-1] if alive else "")


class Census:
    """Of one driver process: what it has against what it had when it began to serve."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._first = self._count()

    def leaks(self) -> Sequence[str]:
        """As `Findings.leaks`."""
        descriptors, threads = self._count()
        grown = descriptors - self._first[0], threads - self._first[1]
        return _sentences(grown[0], _last(self._pid), grown[1], "")

    def _count(self) -> tuple[int, int]:
        try:
            return _entries(f"/proc/{self._pid}/fd"), _entries(f"/proc/{self._pid}/task")
        except OSError:
            return 0, 0  # it has ended


def _entries(folder: str) -> int:
    with os.scandir(folder) as entries:
        return sum(1 for _ in entries)


def _sentences(descriptors: int, example: str, threads: int, name: str) -> Sequence[str]:
    found = []
    if descriptors >= DESCRIPTORS:
        found.append(f"it opened {descriptors} descriptors in its calls and has not closed them" + _such_as(example))
    if threads >= THREADS:
        found.append(f"it started {threads} threads in its calls that still run" + _such_as(name))
    return found


def _such_as(example: str) -> str:
    return f", such as {example}" if example else ""


def _descriptors() -> dict[int, str]:
    return _of("self")


def _of(pid: str) -> dict[int, str]:
    found = {}
    with os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in entries:
            with suppress(OSError):
                found[int(entry.name)] = os.readlink(entry.path)  # noqa: PTH115  # for each of many calls
    own = f"/proc/{os.getpid()}/fd"  # the listing itself
    return {number: target for number, target in found.items() if target != own}


def _last(pid: int) -> str:
    with suppress(OSError):
        found = _of(str(pid))
        return found[max(found)] if found else ""
    return ""


def _threads() -> set[threading.Thread]:
    return set(threading.enumerate())
