"""One call: deadlines, idle streams, cancellation, the circuit, errors, figures."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wharfie.plugins.circuit import FAILURES
from wharfie.plugins.contract import methods
from wharfie.plugins.inventory import Entry
from wharfie.plugins.supervisor import Supervised, Supervisor
from wharfie.spi.call import current_call, progress
from wharfie.spi.driver import Deadline, Driver
from wharfie.spi.errors import (
    Cancelled,
    Conflict,
    DeadlineExceeded,
    DriverError,
    Forbidden,
    InvalidArgument,
    NotFound,
    OutOfSpace,
    Unavailable,
    Unsupported,
)
from wharfie.spi.volume import Volume, VolumeDriver

REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")


class Toy(VolumeDriver):
    """Each method runs what the test has set for it."""

    name = "toy"
    spi = "1.0"

    def __init__(self) -> None:
        self.on: dict[str, Callable[..., Any]] = {}

    def _do(self, method: str, *args: Any) -> Any:
        return self.on[method](*args) if method in self.on else None

    def probe(self):
        self._do("probe")

    def create(self, name, options, labels):
        return self._do("create", name) or Volume(name=name, mountpoint=None, created="")

    def remove(self, name):
        self._do("remove", name)

    def get(self, name):
        return self._do("get", name) or Volume(name=name, mountpoint=None, created="")

    def volumes(self):
        return ()

    def mount(self, name, mount_id):
        return self._do("mount", name, mount_id) or Path("/data")

    def unmount(self, name, mount_id):
        self._do("unmount", name, mount_id)

    def reconcile(self, mounts):
        return ()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def supervised(toy: Toy, workers: int = 4, **deadlines: Deadline) -> tuple[Supervised[VolumeDriver], Clock]:
    entry = Entry(kind="volume", name="toy", value="toys:Toy", distribution="wharfie-toy", version="2.1")
    known = dict(methods(VolumeDriver))
    for name, limit in deadlines.items():
        known[name] = replace(known[name], deadline=limit)
    supervisor = Supervisor(entry, workers)
    clock = Clock()
    supervisor.circuit._clock = clock
    return Supervised(toy, VolumeDriver, supervisor, known, frozenset()), clock


def fails(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any) -> None:
        raise error

    return fail


def test_a_call_runs_in_a_worker_with_the_callers_context_and_an_id():
    toy, seen = Toy(), {}

    def get(name: str) -> None:
        seen.update(thread=threading.current_thread(), request=REQUEST.get(), call=current_call().id)

    toy.on["get"] = get

    async def scene():
        driver, _ = supervised(toy)
        REQUEST.set("r1")
        assert (await driver.call(VolumeDriver.get, "data")).name == "data"
        assert await driver.call(VolumeDriver.mount, mount_id="c1", name="data") == Path("/data")
        return driver.figures["get"].calls, driver.title, driver.distribution, driver.driver_class

    assert asyncio.run(scene()) == (1, 'volume driver "toy" (wharfie-toy 2.1)', "wharfie-toy 2.1", Toy)
    assert seen["thread"].daemon and seen["thread"] is not threading.main_thread()
    assert seen["request"] == "r1" and seen["call"]


def test_errors_that_a_driver_means_for_the_caller_keep_their_words():
    toy = Toy()

    async def scene():
        driver, _ = supervised(toy)
        for error in (
            InvalidArgument("a"),
            NotFound("b"),
            Conflict("volume is in use"),
            Forbidden("c"),
            Unsupported("d"),
            OutOfSpace("e", details={"pool": "p"}),
        ):
            toy.on["get"] = fails(error)
            with pytest.raises(type(error)) as caught:
                await driver.call(VolumeDriver.get, "data")
            assert caught.value is error

    asyncio.run(scene())


def test_failures_without_a_reason_get_the_drivers_name_and_a_traceback_in_the_log(caplog):
    toy = Toy()
    title = 'volume driver "toy" (wharfie-toy 2.1): '

    async def error_of(driver, error):
        toy.on["get"] = fails(error)
        with pytest.raises(Exception) as caught:
            await driver.call(VolumeDriver.get, "data")
        return caught.value

    async def scene():
        driver, _ = supervised(toy)
        down = await error_of(driver, Unavailable("10.0.0.5 is down", retry_after=3.0, details={"a": "b"}))
        assert (type(down), down.message, down.retry_after, down.details) == (
            Unavailable,
            title + "10.0.0.5 is down",
            3.0,
            {"a": "b"},
        )
        own = await error_of(driver, type("AcmeError", (NotFound,), {"__init__": lambda self: None})())
        assert type(own) is NotFound
        full = await error_of(driver, OSError(28, "No space left on device", "/data"))
        assert type(full) is OutOfSpace and full.details["errno"] == "ENOSPC"
        assert full.message.startswith(title + 'get of "data" failed: /data: no space left on device')
        assert type(await error_of(driver, PermissionError(13, "Permission denied"))) is Forbidden
        optional = await error_of(driver, NotImplementedError())
        assert (type(optional), optional.message) == (Unsupported, title[:-2] + " does not offer get")
        odd = await error_of(driver, ZeroDivisionError("division by zero"))
        assert type(odd) is DriverError
        return odd

    odd = asyncio.run(scene())
    record = next(record for record in caplog.records if odd.details["call"] in record.getMessage())
    assert "Traceback" in logging.Formatter().format(record)


def test_a_late_result_is_dropped_and_its_worker_serves_again(caplog):
    toy, gate = Toy(), threading.Event()
    toy.on["get"] = lambda name: gate.wait(30) and None

    async def scene():
        driver, _ = supervised(toy, workers=1, get=Deadline(total=0.05))
        with pytest.raises(DeadlineExceeded, match=r'get of "data" did not return within 0\.05 s') as caught:
            await driver.call(VolumeDriver.get, "data")
        assert driver.supervisor.lost == 1
        with pytest.raises(Unavailable, match="all 1 workers hang"):
            await driver.call(VolumeDriver.remove, "data")
        gate.set()
        while driver.supervisor.lost:  # noqa: ASYNC110  # it is counted in the worker's thread
            await asyncio.sleep(0.005)
        await driver.call(VolumeDriver.remove, "data")
        return caught.value.details["call"]

    with caplog.at_level(logging.WARNING):
        call = asyncio.run(scene())
    assert any(call in record.getMessage() and "nobody waited" in record.getMessage() for record in caplog.records)


def test_a_call_that_found_no_free_worker_is_not_begun():
    toy, gate = Toy(), threading.Event()
    toy.on["get"] = lambda name: gate.wait(30) and None
    removed = []
    toy.on["remove"] = removed.append

    async def scene():
        driver, _ = supervised(toy, workers=1, remove=Deadline(total=0.05))
        busy = asyncio.create_task(driver.call(VolumeDriver.get, "data"))
        await asyncio.sleep(0.01)
        with pytest.raises(Unavailable, match="was not begun, all 1 workers are busy") as caught:
            await driver.call(VolumeDriver.remove, "data")
        assert type(caught.value) is Unavailable
        gate.set()
        await busy
        await driver.call(VolumeDriver.remove, "other")

    asyncio.run(scene())
    assert removed == ["other"]


def test_a_stream_may_take_any_time_while_it_moves():
    toy, gate = Toy(), threading.Event()

    def moving(name: str) -> None:
        for _ in range(12):
            time.sleep(0.02)
            progress()

    async def scene():
        driver, _ = supervised(toy, get=Deadline(total=None, idle=0.15))
        toy.on["get"] = moving
        await driver.call(VolumeDriver.get, "data")
        toy.on["get"] = lambda name: gate.wait(30) and None
        with pytest.raises(DeadlineExceeded, match=r"moved nothing for 0\.15 s"):
            await driver.call(VolumeDriver.get, "data")
        gate.set()

    asyncio.run(scene())


def test_a_driver_is_told_that_its_caller_is_gone():
    toy, begun, ended = Toy(), threading.Event(), threading.Event()

    def endless(name: str) -> None:
        begun.set()
        try:
            while True:
                time.sleep(0.002)
                progress()
        except Cancelled:
            ended.set()
            raise

    toy.on["get"] = endless

    async def scene():
        driver, _ = supervised(toy)
        task = asyncio.create_task(driver.call(VolumeDriver.get, "data"))
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(ended.wait, 10)
        await driver.call(VolumeDriver.volumes)
        assert driver.supervisor.lost == 0

    asyncio.run(scene())


def test_a_cancelled_call_that_hangs_is_written_off_all_the_same():
    toy, gate, begun = Toy(), threading.Event(), threading.Event()

    def hang(name: str) -> None:
        begun.set()
        gate.wait(30)

    toy.on["get"] = hang

    async def scene():
        driver, _ = supervised(toy, get=Deadline(total=0.1))
        task = asyncio.create_task(driver.call(VolumeDriver.get, "data"))
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        await asyncio.wait([task])
        while not driver.supervisor.lost:  # noqa: ASYNC110  # the deadline's timer counts it
            await asyncio.sleep(0.01)
        gate.set()

    asyncio.run(scene())


def test_the_circuit_opens_refuses_probes_and_closes():
    toy, recovered = Toy(), []

    async def scene():
        driver, clock = supervised(toy)
        driver.supervisor.on_recovery = lambda: recovered.append(clock.now)
        toy.on["get"] = fails(ValueError("broken"))
        for _ in range(FAILURES):
            with pytest.raises(DriverError):
                await driver.call(VolumeDriver.get, "data")
        with pytest.raises(
            Unavailable, match=r"keeps failing and is not asked for another 5 s.*ValueError: broken"
        ) as refused:
            await driver.call(VolumeDriver.volumes)
        assert refused.value.retry_after == 5
        await driver.call(VolumeDriver.remove, "data")  # removals pass
        await driver.call(VolumeDriver.unmount, "data", "c1")
        await driver.call(Driver.probe)

        clock.now, probes = 5.0, []
        toy.on["probe"] = lambda: probes.append(1) or fails(OSError(5, "Input/output error"))()
        results = await asyncio.gather(*(driver.call(VolumeDriver.volumes) for _ in range(8)), return_exceptions=True)
        assert len(probes) == 1  # one for all that wait
        assert {type(result) for result in results} == {Unavailable}
        assert results[0].retry_after == 10

        clock.now = 15.0
        toy.on["probe"] = lambda: None
        assert await driver.call(VolumeDriver.volumes) == ()
        assert not driver.supervisor.circuit.open

    asyncio.run(scene())
    assert recovered == [15.0]


def test_what_the_caller_did_wrong_says_nothing_about_the_driver():
    toy = Toy()

    async def scene():
        driver, _ = supervised(toy)
        for error in (NotFound("no"), InvalidArgument("no"), Unavailable("no"), OutOfSpace("no")) * 3:
            toy.on["get"] = fails(error)
            with pytest.raises(type(error)):
                await driver.call(VolumeDriver.get, "data")
        assert not driver.supervisor.circuit.open
        assert (driver.figures["get"].calls, driver.figures["get"].failures) == (12, 12)

    asyncio.run(scene())


def test_many_calls_at_once_all_come_back():
    toy = Toy()

    async def scene():
        driver, _ = supervised(toy, workers=3)
        names = [f"v{number}" for number in range(300)]
        found = await asyncio.gather(*(driver.call(VolumeDriver.get, name) for name in names))
        assert [volume.name for volume in found] == names

    asyncio.run(scene())
