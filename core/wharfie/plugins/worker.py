"""Threads that foreign code runs in: a bounded pool of daemon threads for each driver.

`concurrent.futures` is not used here: its threads are joined when the process ends, so one hung driver would keep the
daemon alive for ever.
"""

from __future__ import annotations

import contextvars
import threading
import time
from abc import ABC, abstractmethod
from collections import deque


class Exhausted(Exception):
    """Every worker hangs in a call that was given up."""


class Job(ABC):
    """One piece of work. Neither method may raise; both are called in the worker's thread."""

    def __init__(self) -> None:
        self.context = contextvars.copy_context()
        self.began: float | None = None
        self.over = False  # finished or withdrawn
        self.lost = False  # its worker was written off

    @abstractmethod
    def work(self) -> None:
        """Do it, and keep the outcome."""

    @abstractmethod
    def finished(self) -> None:
        """The worker is free again; tell whoever waits."""


class _Worker:
    """A thread, and the lock that it sleeps on. Work is handed to it directly, so that none waits beside an idle one."""

    __slots__ = ("job", "wake")

    def __init__(self, job: Job) -> None:
        self.job: Job | None = job
        self.wake = threading.Lock()
        self.wake.acquire()


class Pool:
    """Up to `size` threads, made when needed, kept for the next call. A worker that was written off and comes back after
    all serves again. Thread-safe."""

    def __init__(self, name: str, size: int) -> None:
        self.size = size
        self.lost = 0
        self._name = name
        self._lock = threading.Lock()
        self._threads = 0
        self._idle: list[_Worker] = []
        self._backlog: deque[Job] = deque()
        self._closed = False

    def submit(self, job: Job) -> None:
        """Run `job` as soon as a worker is free. Raises Exhausted when all workers are lost."""
        with self._lock:
            if self.lost >= self.size or self._closed:
                raise Exhausted
            if self._idle:
                worker = self._idle.pop()
                worker.job = job
                worker.wake.release()
                return
            if self._threads >= self.size:
                self._backlog.append(job)
                return
            self._threads += 1
            number = self._threads
        thread = threading.Thread(target=self._serve, args=(_Worker(job),), name=f"{self._name}-{number}", daemon=True)
        thread.start()

    def withdraw(self, job: Job) -> bool:
        """True: the job had not begun, and never will."""
        with self._lock:
            if job.began is not None or job.over:
                return False
            job.over = True
            return True

    def write_off(self, job: Job) -> bool:
        """True: the job is still running; its worker counts as lost until it comes back."""
        with self._lock:
            if job.over or job.lost:
                return False
            job.lost = True
            self.lost += 1
            return True

    def close(self) -> None:
        """Idle threads end now, busy ones after their work. What had not begun is dropped."""
        with self._lock:
            self._closed = True
            self._backlog.clear()
            for worker in self._idle:
                worker.job = None
                worker.wake.release()
            self._idle.clear()

    def _serve(self, worker: _Worker) -> None:
        job, worker.job = worker.job, None
        while job is not None:
            if self._begin(job):
                job.context.run(job.work)
                self._end(job)
                job.finished()
            job = None  # an idle thread must not keep the last result alive
            job = self._next(worker)

    def _begin(self, job: Job) -> bool:
        with self._lock:
            if job.over:
                return False
            job.began = time.monotonic()
            return True

    def _end(self, job: Job) -> None:
        with self._lock:
            job.over = True
            if job.lost:
                self.lost -= 1

    def _next(self, worker: _Worker) -> Job | None:
        with self._lock:
            if self._closed:
                return None
            if self._backlog:
                return self._backlog.popleft()
            self._idle.append(worker)
        worker.wake.acquire()
        job, worker.job = worker.job, None
        return job
