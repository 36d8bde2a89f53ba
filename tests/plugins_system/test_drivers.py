"""The front: loading once, events, folders, what is known."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path

import pytest

from wharfie.plugins import drivers as drivers_module
from wharfie.plugins.states import State
from wharfie.spi.driver import DriverEvent
from wharfie.spi.errors import Unavailable
from wharfie.spi.volume import VolumeDriver


def test_calls_at_the_same_time_load_once(drivers):
    async def scene():
        house = drivers()
        found = await asyncio.gather(*(house.get(VolumeDriver, "good") for _ in range(20)))
        assert len({id(one) for one in found}) == 1
        assert house.loaded(VolumeDriver) == {"good": found[0]}
        return sys.modules["hostile_drivers.good"].Good.opened

    assert asyncio.run(scene()) == 1


def test_all_that_wait_for_a_broken_driver_get_its_error(drivers):
    async def scene():
        house = drivers()
        return await asyncio.gather(*(house.get(VolumeDriver, "openfails") for _ in range(5)), return_exceptions=True)

    assert {type(error) for error in asyncio.run(scene())} == {Unavailable}


def test_a_caller_that_goes_away_does_not_spoil_it_for_the_others(drivers):
    async def scene():
        house = drivers()
        first = asyncio.create_task(house.get(VolumeDriver, "good"))
        second = asyncio.create_task(house.get(VolumeDriver, "good"))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).name == "good"
        gone = asyncio.create_task(house.get(VolumeDriver, "exits"))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        await house.close()

    asyncio.run(scene())


def test_the_end_waits_for_no_driver_that_hangs_on_its_way_in(drivers, monkeypatch):
    monkeypatch.setattr(drivers_module, "_LOADING_AT_THE_END", 0.05)

    async def scene():
        house = drivers()
        hanging = asyncio.create_task(house.get(VolumeDriver, "openhangs"))
        await asyncio.sleep(0.01)
        await house.close()
        assert (await asyncio.wait([hanging], timeout=20))[1] == set()
        assert hanging.cancelled()

    asyncio.run(scene())


def test_events_arrive_in_the_loops_thread_and_a_bad_listener_hides_them_from_nobody(drivers, caplog):
    heard = []

    async def scene():
        house = drivers()
        arrived = asyncio.Event()

        def listen(kind: str, name: str, event: DriverEvent) -> None:
            heard.append((kind, name, event, threading.current_thread()))
            arrived.set()

        house.listen(lambda *_: 1 / 0)
        house.listen(listen)
        driver = await house.get(VolumeDriver, "good")
        await driver.call(VolumeDriver.create, "data", {}, {})
        await asyncio.wait_for(arrived.wait(), 20)
        return driver._driver.context.emit

    emit = asyncio.run(scene())
    [(kind, name, event, thread)] = heard
    assert (kind, name, event, thread) == ("volume", "good", DriverEvent(), threading.main_thread())
    assert "ZeroDivisionError" in caplog.text
    emit(DriverEvent())  # the loop has ended: dropped
    with pytest.raises(TypeError, match="DriverEvent"):
        emit("exited")


def test_a_driver_gets_folders_of_its_own_and_a_logger_that_names_the_call(drivers, tmp_path: Path, caplog):
    (tmp_path / "state" / "volume" / "good").mkdir(parents=True, mode=0o755)

    async def scene():
        driver = await drivers().get(VolumeDriver, "good")
        with caplog.at_level("INFO", logger="wharfie.drivers"):
            await driver.call(VolumeDriver.create, "data", {}, {})
        return driver._driver.context

    context = asyncio.run(scene())
    assert context.state == tmp_path / "state/volume/good" and context.run == tmp_path / "run/volume/good"
    assert [folder.stat().st_mode & 0o777 for folder in (context.state, context.run)] == [0o700, 0o700]
    record = next(record for record in caplog.records if record.name == "wharfie.drivers.volume.good")
    assert record.getMessage().startswith("call ") and record.getMessage().endswith(": creating data")


def test_folders_that_cannot_be_made_are_one_error(drivers, tmp_path: Path):
    (tmp_path / "state").write_text("a file where the folder should be")

    async def scene():
        with pytest.raises(Unavailable, match="folders of volume driver"):
            await drivers().get(VolumeDriver, "good")

    asyncio.run(scene())


def test_states_import_nothing_and_follow_the_driver(drivers):
    async def scene():
        house = drivers()
        before = {row.name: row.state for row in house.states() if row.kind == "volume"}
        assert "hostile_drivers" not in sys.modules
        loading = asyncio.create_task(house.get(VolumeDriver, "good"))
        await asyncio.sleep(0)
        during = {row.name: row.state for row in house.states()}["good"]
        driver = await loading
        opened = {row.name: row.state for row in house.states()}["good"]
        for _ in range(5):
            driver.supervisor.circuit.failed("it broke")
        failing = next(row for row in house.states() if row.name == "good")
        return before, during, opened, failing

    before, during, opened, failing = asyncio.run(scene())
    assert (before["good"], before["exits"]) == (State.INSTALLED, State.INSTALLED)
    assert (before["twice"], before["future"]) == (State.DUPLICATE, State.INCOMPATIBLE)
    assert (during, opened, failing.state, failing.cause) == (State.LOADED, State.OPEN, State.FAILING, "it broke")
    assert (failing.distribution, failing.version) == ("wharfie-good", "1.0")
