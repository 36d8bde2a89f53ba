"""The pool: no job waits beside an idle worker, none is lost, threads are reused."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from wharfie.plugins.worker import Exhausted, Job, Pool


class Task(Job):
    def __init__(self, do: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.do = do
        self.done = threading.Event()
        self.thread: threading.Thread | None = None

    def work(self) -> None:
        self.thread = threading.current_thread()
        self.do()

    def finished(self) -> None:
        self.done.set()


def submitted(pool: Pool, do: Callable[[], object] = lambda: None) -> Task:
    task = Task(do)
    pool.submit(task)
    return task


def test_every_worker_is_used_before_anything_waits():
    pool, together = Pool("t", 16), threading.Barrier(16)
    tasks = [submitted(pool, lambda: together.wait(20)) for _ in range(16)]
    assert all(task.done.wait(20) for task in tasks)
    assert len({task.thread for task in tasks}) == 16
    pool.close()


def test_no_job_waits_beside_an_idle_worker():
    """One worker of two hangs; every other job must still be done at once, however the hand-over races."""
    pool, gate = Pool("t", 2), threading.Event()
    submitted(pool, lambda: gate.wait(30))
    for _ in range(2000):
        assert submitted(pool).done.wait(20)
    gate.set()
    pool.close()


def test_an_idle_worker_is_reused():
    pool = Pool("t", 16)
    first = submitted(pool)
    first.done.wait(20)
    while not pool._idle:
        pass
    second = submitted(pool)
    second.done.wait(20)
    assert first.thread is second.thread
    pool.close()
    first.thread.join(20)
    assert not first.thread.is_alive()


def test_a_waiting_job_can_be_withdrawn_and_a_running_one_cannot():
    pool, gate, begun = Pool("t", 1), threading.Event(), threading.Event()
    running = submitted(pool, lambda: begun.set() or gate.wait(30))
    waiting = submitted(pool)
    begun.wait(20)
    assert not pool.withdraw(running)
    assert pool.withdraw(waiting) and not pool.withdraw(waiting)
    gate.set()
    assert submitted(pool).done.wait(20)
    assert not waiting.done.is_set()
    pool.close()


def test_lost_workers_are_counted_until_they_come_back():
    pool, gate, begun = Pool("t", 1), threading.Event(), threading.Event()
    running = submitted(pool, lambda: begun.set() or gate.wait(30))
    begun.wait(20)
    assert pool.write_off(running) and not pool.write_off(running)
    assert pool.lost == 1
    with pytest.raises(Exhausted):
        pool.submit(Task())
    gate.set()
    running.done.wait(20)
    assert pool.lost == 0
    assert not pool.write_off(running)
    assert submitted(pool).done.wait(20)
    pool.close()
    with pytest.raises(Exhausted):
        pool.submit(Task())
