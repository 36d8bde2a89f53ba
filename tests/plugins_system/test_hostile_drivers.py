"""Each hostile driver gives its caller one clear error, and a good one serves meanwhile (plugin-system failures 1 to 5)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins_system.conftest import FAST
from wharfie.plugins import drivers as drivers_module
from wharfie.plugins import inventory
from wharfie.plugins.states import State
from wharfie.spi.driver import Deadline, Driver
from wharfie.spi.errors import DeadlineExceeded, DriverError, Forbidden, NotFound, Unavailable, WharfieError
from wharfie.spi.log import LogDriver
from wharfie.spi.volume import VolumeDriver

REFUSED = {
    "importerror": (State.BROKEN, ["(wharfie-importerror 1.0)", "a_module_that_nobody_installed", "pip install"]),
    "uninstalled": (State.BROKEN, ["hostile_drivers.nosuchmodule"]),
    "noattribute": (State.BROKEN, ["hostile_drivers.good:Missing"]),
    "exits": (State.BROKEN, ["cannot be imported", "SystemExit: 3"]),
    "constructor": (State.BROKEN, ["RuntimeError: no luck in the constructor"]),
    "constructor-exits": (State.BROKEN, ["SystemExit: leaving"]),
    "unfit": (State.UNFIT, ["acmefs is not in /proc/filesystems", "modprobe acmefs"]),
    "checkfails": (State.FAILED, ["check failed", "KeyError"]),
    "checklies": (State.FAILED, ["check failed", "AttributeError"]),
    "openfails": (State.FAILED, ["open failed", "/var/acme: no space left on device"]),
    "openhangs": (State.FAILED, ["open did not return within 0.2 s", '"deadlines"']),
    "nextmajor": (State.INCOMPATIBLE, ["contract 2.0", "offers 1.0", "pip install --upgrade wharfie"]),
    "nextminor": (State.INCOMPATIBLE, ["contract 1.7", "offers 1.0"]),
    "nospi": (State.INCOMPATIBLE, ["spi is None"]),
    "abstract": (State.BROKEN, ["lacks methods", "create, mount, reconcile, remove, unmount, volumes"]),
    "misnamed": (State.BROKEN, ["'somebody-else'", "'misnamed'"]),
    "wrongkind": (State.BROKEN, ["no VolumeDriver"]),
    "nodriver": (State.BROKEN, ["hostile_drivers.contracts:NO_DRIVER", "no VolumeDriver"]),
    "coroutine": (State.BROKEN, ["get as a coroutine"]),
    "settings": (State.MISCONFIGURED, ["drivers.volume.settings.server: missing", "wharfie-settings 1.0"]),
    "nomodel": (State.BROKEN, ["no pydantic model"]),
    "future": (State.INCOMPATIBLE, ["wharfie>=99", "pip install --upgrade wharfie-future"]),
    "garbled": (State.INCOMPATIBLE, ["=>!! 1"]),
    "twice": (State.DUPLICATE, ["wharfie-twice-a 1.0 and wharfie-twice-b 2.0", "pip uninstall"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_driver_that_cannot_be_used_costs_one_error_and_a_good_one_serves_meanwhile(name, drivers):
    state, texts = REFUSED[name]

    async def scene():
        house = drivers({f"volume.{name}": {"deadlines": {"open": 0.2}}} if name == "openhangs" else {})
        good = await house.get(VolumeDriver, "good")

        async def serve():
            return [await good.call(VolumeDriver.create, f"v{number}", {}, {}) for number in range(50)]

        serving = asyncio.create_task(serve())
        with pytest.raises(Unavailable) as caught:
            await house.get(VolumeDriver, name)
        assert len(await serving) == 50
        row = next(row for row in house.states() if (row.kind, row.name) == ("volume", name))
        await house.close()
        return caught.value, row

    error, row = asyncio.run(scene())
    for text in texts:
        assert text in error.message
    assert f'volume driver "{name}"' in error.message or state is State.MISCONFIGURED
    assert "\n" not in error.message
    assert row.state is state
    assert row.cause and row.remedy
    assert "HOSTILE_MUST_NOT_LOAD" not in os.environ


def test_a_name_that_nobody_offers_is_answered_at_once_with_those_that_exist(drivers):
    async def scene():
        house = drivers()
        with pytest.raises(NotFound) as caught:
            await house.get(VolumeDriver, "goood")
        with pytest.raises(NotFound) as logs:
            await house.get(LogDriver, "json-filed")
        with pytest.raises(NotFound):
            await house.get(VolumeDriver, "../../etc")
        assert not [row for row in house.states() if row.name == "goood"]
        return caught.value.message, logs.value.message

    message, logs = asyncio.run(scene())
    assert message.startswith('plugin "goood" not found')
    assert 'Did you mean "good"?' in message
    assert "installed are: abstract, " in message
    assert "pip install" in message
    assert "no log driver" in logs


def test_the_core_says_where_its_own_drivers_are(drivers, monkeypatch):
    async def scene():
        house = drivers()
        monkeypatch.setattr(inventory, "distributions", lambda path: [])
        with pytest.raises(NotFound, match="pip install wharfie-volume-local"):
            await house.get(VolumeDriver, "local")

    asyncio.run(scene())


def test_the_log_has_the_traceback_of_a_failed_import(drivers, caplog):
    async def scene():
        with pytest.raises(Unavailable, match="dependency is missing"):
            await drivers().get(VolumeDriver, "importerror")

    asyncio.run(scene())
    assert any(record.exc_info and record.exc_info[0] is ModuleNotFoundError for record in caplog.records)


def test_a_disabled_driver_is_not_imported(drivers):
    async def scene():
        house = drivers(disabled=["volume.exits"])
        with pytest.raises(Forbidden, match='"disabled-plugins"'):
            await house.get(VolumeDriver, "exits")
        assert "exits" not in house.known(VolumeDriver)
        assert next(row for row in house.states() if row.name == "exits").state is State.DISABLED

    asyncio.run(scene())
    assert "hostile_drivers.exits" not in sys.modules


def test_a_failed_start_is_tried_again_at_the_next_use(drivers):
    async def scene():
        house = drivers()
        with pytest.raises(Unavailable):
            await house.get(VolumeDriver, "openfails")
        driver = await house.get(VolumeDriver, "openfails")
        assert next(row for row in house.states() if row.name == "openfails").state is State.OPEN
        return await driver.call(VolumeDriver.volumes)

    assert asyncio.run(scene()) == []


def test_an_import_that_hangs_costs_one_deadline_not_one_for_each_caller(drivers, monkeypatch):
    monkeypatch.setattr(drivers_module, "IMPORT", Deadline(total=0.2))

    async def scene():
        house = drivers()
        with pytest.raises(Unavailable, match=r"import did not return within 0\.2 s"):
            await house.get(VolumeDriver, "slowimport")
        with pytest.raises(Unavailable, match="still hangs in an earlier attempt"):
            await house.get(VolumeDriver, "slowimport")
        return await (await house.get(VolumeDriver, "good")).call(VolumeDriver.volumes)

    assert asyncio.run(scene()) == []


ANSWERS = {
    "value": (DriverError, 'volume driver "raises" (wharfie-raises 1.0): mount of "value" failed: ValueError: bad luck'),
    "stop": (DriverError, "StopIteration"),
    "interrupt": (DriverError, "KeyboardInterrupt"),
    "exit": (DriverError, "SystemExit: 3"),
    "realexit": (DriverError, "SystemExit: 3"),
    "generatorexit": (DriverError, "GeneratorExit"),
    "speechless": (DriverError, "Speechless"),
    "unspeakable": (DriverError, "an error that cannot be shown"),
    "string": (DriverError, "mount returned str, but its contract says Path"),
    "none": (DriverError, "mount returned NoneType"),
    "coroutine": (DriverError, "mount returned a coroutine"),
    "generator": (DriverError, "mount returned a generator"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_whatever_a_method_does_becomes_one_error(name, drivers, caplog):
    kind, text = ANSWERS[name]

    async def scene():
        driver = await drivers().get(VolumeDriver, "raises")
        with pytest.raises(WharfieError) as caught:
            await driver.call(VolumeDriver.mount, name, "c1")
        assert await driver.call(VolumeDriver.volumes) == []
        return caught.value

    error = asyncio.run(scene())
    assert type(error) is kind
    assert text in error.message
    assert error.message.startswith('volume driver "raises" (wharfie-raises 1.0): ')
    if "call" in error.details:
        assert error.details["call"] in caplog.text


def test_a_call_that_hangs_ends_at_its_deadline_and_others_go_on(drivers):
    async def scene():
        house = drivers({"volume.hangs": FAST})
        good, hangs = await asyncio.gather(house.get(VolumeDriver, "good"), house.get(VolumeDriver, "hangs"))
        calls = [asyncio.create_task(hangs.call(VolumeDriver.get, "data")) for _ in range(2)]
        while not all(task.done() for task in calls):
            await good.call(VolumeDriver.create, "data", {}, {})
        errors = await asyncio.gather(*calls, return_exceptions=True)
        with pytest.raises(Unavailable, match="all 2 workers hang") as lost:
            await hangs.call(VolumeDriver.volumes)
        await house.close()
        return errors, lost.value

    errors, lost = asyncio.run(scene())
    assert [type(error) for error in errors] == [DeadlineExceeded, DeadlineExceeded]
    assert 'volume driver "hangs" (wharfie-hangs 1.0): get of "data" did not return within 0.2 s' in errors[0].message
    assert type(lost) is Unavailable


def test_a_hung_driver_does_not_keep_the_process_alive(hostile: Path, tmp_path: Path):
    script = f"""
import asyncio
from pathlib import Path
from wharfie.engine.host import host_facts
from wharfie.plugins.drivers import Drivers
from wharfie.plugins.settings import DriverSettings
from wharfie.spi.errors import DeadlineExceeded
from wharfie.spi.volume import VolumeDriver

async def main():
    folder = Path({str(tmp_path)!r})
    settings = DriverSettings(drivers={{"volume.hangs": {{"deadlines": {{"get": 0.1}}}}}})
    drivers = Drivers(settings, state=folder / "s", run=folder / "r", instance="0", host=host_facts())
    driver = await drivers.get(VolumeDriver, "hangs")
    try:
        await driver.call(VolumeDriver.get, "data")
    except DeadlineExceeded:
        print("late", flush=True)
    await drivers.close()

asyncio.run(main())
"""
    # The call itself hangs for a minute; the process has to be gone long before.
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(hostile)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (0, "late\n"), done.stderr


def test_close_closes_the_others_when_one_exits(drivers, caplog):
    async def scene():
        house = drivers()
        await house.get(VolumeDriver, "closefails")
        await house.get(VolumeDriver, "good")
        await house.close()
        await house.close()
        assert house.loaded(VolumeDriver) == {}
        with pytest.raises(Unavailable, match="the daemon is ending"):
            await house.get(VolumeDriver, "good")

    asyncio.run(scene())
    assert "SystemExit: 9" in caplog.text


def test_a_stranger_that_is_installed_while_the_daemon_runs_is_seen(drivers, hostile: Path):
    async def scene():
        house = drivers()
        with pytest.raises(NotFound):
            await house.get(VolumeDriver, "late")
        (hostile / "late_driver.py").write_text(
            "from hostile_drivers.good import Good\nclass Late(Good):\n    name = 'late'\n", encoding="utf-8"
        )
        info = hostile / "late-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[wharfie.volume]\nlate = late_driver:Late\n")
        driver = await house.get(VolumeDriver, "late")
        assert "late" in house.known(VolumeDriver)
        await driver.call(Driver.probe)

    asyncio.run(scene())
    del sys.modules["late_driver"]
