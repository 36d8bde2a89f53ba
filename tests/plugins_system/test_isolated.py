"""A driver in a process of its own: the same contract, the same errors, and no crash but its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from wharfie.plugins.remote import keeper as keeper_module
from wharfie.plugins.states import State
from wharfie.spi.driver import Driver, DriverEvent
from wharfie.spi.errors import DeadlineExceeded, DriverError, NotFound, Unavailable, WharfieError
from wharfie.spi.volume import VolumeCapability, VolumeDriver

ALONE = {"isolate": True}


def pid_of(house, name: str = "crashes") -> int:
    return house._slots["volume", name].keeper.pid


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def hosts() -> list[str]:
    """Driver processes of this test's own."""
    pids: list[str] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # threads come and go
            pids += (task / "children").read_text().split()
    return [pid for pid in pids if alive(int(pid)) and "wharfie.plugins.host" in Path(f"/proc/{pid}/cmdline").read_text()]


async def until(condition, seconds: float = 15.0):
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not come true"
        await asyncio.sleep(0.01)


def state_of(house, name: str):
    return next(row for row in house.states() if (row.kind, row.name) == ("volume", name))


def test_it_serves_from_another_process(drivers, tmp_path: Path):
    async def scene():
        house = drivers({"volume.crashes": ALONE})
        events = []
        house.listen(lambda kind, name, event: events.append((kind, name, event)))
        driver = await house.get(VolumeDriver, "crashes")
        assert driver.capabilities == {VolumeCapability.USAGE}
        made = await driver.call(VolumeDriver.create, "data", {"o": "1"}, {})
        assert (made.name, made.options) == ("data", {"o": "1"})
        assert events == [("volume", "crashes", DriverEvent())] * 2
        assert (await driver.call(VolumeDriver.usage, "data")).inodes == pid_of(house) != os.getpid()
        assert await driver.call(VolumeDriver.mount, "data", "c1") == tmp_path / "state/volume/crashes/data"
        assert re.fullmatch(r"[0-9a-f]{4}-[0-9a-f]+", (await driver.call(VolumeDriver.get, "data")).created)
        assert driver.figures["create"].calls == 1
        pid = pid_of(house)
        await house.close()
        assert not alive(pid)

    asyncio.run(scene())


WAYS_OF_FAILING = [
    "value",
    "stop",
    "interrupt",
    "exit",
    "generatorexit",
    "speechless",
    "disk",
    "permission",
    "io",
    "notimplemented",
    "invalid",
    "conflict",
    "ownnotfound",
    "unspeakable",
    "full",
    "unavailable",
    "drivererror",
    "string",
    "none",
    "coroutine",
    "generator",
    "realexit",
]


def test_errors_are_the_same_on_both_sides_of_the_border(drivers, tmp_path: Path):
    async def failures(settings, **change):
        house = drivers(settings)
        driver = await house.get(VolumeDriver, "raises")
        found = {}
        for name in WAYS_OF_FAILING:
            driver.supervisor.circuit.close()
            with pytest.raises(WharfieError) as caught:
                await driver.call(VolumeDriver.mount, name, "c1")
            error = caught.value
            details = {key: value for key, value in error.details.items() if key != "call"}
            found[name] = (
                type(error),
                re.sub(r"[0-9a-f]{4}-[0-9a-f]+", "ID", error.message),
                details,
                getattr(error, "retry_after", None),
            )
        await house.close()
        return found

    inside, outside = (asyncio.run(failures({"volume.raises": {"isolate": alone}})) for alone in (False, True))
    cannot = [found.pop("unspeakable") for found in (inside, outside)]
    assert all(found[0] is DriverError and "an error that cannot be shown" in found[1] for found in cannot)
    assert outside == inside


@pytest.mark.parametrize(
    ("way", "how"),
    [("exit", "status 3"), ("segfault", "SIGSEGV"), ("kill", "SIGKILL"), ("closes", "ended with status")],
)
def test_a_crash_fails_the_calls_in_flight_and_hurts_nobody_else(drivers, way, how, monkeypatch):
    async def scene():
        house = drivers({"volume.crashes": ALONE})
        told: list[tuple[str, str]] = []

        async def reconcile(kind, name):
            # Only the engine's own words reach it until this returns.
            told.append((kind, name))
            crashed = await house.get(VolumeDriver, "crashes")
            await crashed.call(VolumeDriver.reconcile, {"known": frozenset()})

        house.on_restart(reconcile)
        good = await house.get(VolumeDriver, "good")
        driver = await house.get(VolumeDriver, "crashes")
        first = pid_of(house)
        slow = [asyncio.create_task(driver.call(VolumeDriver.get, "slow")) for _ in range(3)]
        await asyncio.sleep(0.1)
        with pytest.raises(Unavailable, match=r'volume driver "crashes" \(wharfie-crashes 1\.0\).*' + how) as caught:
            await driver.call(VolumeDriver.create, way, {}, {})
        assert ("last words of" in caught.value.message) == (way != "closes") or way == "closes"
        for task in slow:
            with pytest.raises(Unavailable):
                await task
        assert (await good.call(VolumeDriver.create, "v", {}, {})).name == "v"
        if state_of(house, "crashes").state is State.FAILING:
            with pytest.raises(Unavailable, match="started again") as down:
                await driver.call(VolumeDriver.get, "x")
            assert down.value.retry_after is not None
        await until(lambda: state_of(house, "crashes").state is State.OPEN)
        assert told == [("volume", "crashes")]
        usage = await driver.call(VolumeDriver.usage, "known")
        assert usage.size == 1 and usage.inodes == pid_of(house) != first  # it was told before anybody was served
        await house.close()

    asyncio.run(scene())


def test_what_dies_again_and_again_is_started_with_growing_pauses(drivers):
    async def scene():
        house = drivers({"volume.crashes": ALONE})
        driver = await house.get(VolumeDriver, "crashes")
        keeper = house._slots["volume", "crashes"].keeper
        pauses = []
        for _ in range(3):
            with pytest.raises(Unavailable):
                await driver.call(VolumeDriver.create, "kill", {}, {})
            await until(lambda: keeper.down)
            pauses.append(float(re.search(r"in ([\d.]+) s", keeper.down)[1]))
            await until(lambda: not keeper.down)
        assert pauses == [0.1, 0.2, 0.4]
        assert keeper_module.LONGEST_PAUSE == 30
        await house.close()

    asyncio.run(scene())


@pytest.mark.parametrize("way", ["hang", "hold"])
def test_a_deadline_ends_the_process(drivers, way):
    async def scene():
        house = drivers({"volume.crashes": ALONE | {"deadlines": {"create": 0.3}}})
        driver = await house.get(VolumeDriver, "crashes")
        first = pid_of(house)
        with pytest.raises(DeadlineExceeded, match=r"create of .* did not return within 0\.3 s"):
            await driver.call(VolumeDriver.create, way, {}, {})
        await until(lambda: pid_of(house) not in (0, first) and state_of(house, "crashes").state is State.OPEN)
        assert not alive(first)
        assert (await driver.call(VolumeDriver.create, "data", {}, {})).name == "data"
        assert driver.supervisor.lost == 0
        await house.close()

    asyncio.run(scene())


def test_a_process_that_hangs_without_a_call_is_found_by_its_heartbeat(drivers, monkeypatch):
    monkeypatch.setattr(keeper_module, "HEARTBEAT", 0.2)

    async def scene():
        house = drivers({"volume.crashes": ALONE | {"deadlines": {"probe": 0.3}}})
        await house.get(VolumeDriver, "crashes")
        first = pid_of(house)
        os.kill(first, signal.SIGSTOP)
        await until(lambda: pid_of(house) not in (0, first))
        await house.close()

    asyncio.run(scene())


def test_progress_and_cancelling_travel(drivers, tmp_path: Path):
    async def scene():
        house = drivers({"volume.crashes": ALONE | {"deadlines": {"get": 10}}})
        driver = await house.get(VolumeDriver, "crashes")
        moving = asyncio.create_task(driver.call(VolumeDriver.get, "moving"))
        keeper = house._slots["volume", "crashes"].keeper
        await until(lambda: keeper._process._moving)
        [call] = keeper._process._moving.values()
        began = call.moved
        await until(lambda: call.moved > began)
        moving.cancel()
        waiting = asyncio.create_task(driver.call(VolumeDriver.get, "cancelled"))
        await asyncio.sleep(0.2)
        waiting.cancel()
        await until((tmp_path / "state/volume/crashes/cancelled").exists)
        await house.close()

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("name", "state", "texts"),
    [
        ("crash-import", State.BROKEN, ["ended with status 7", "imported or made", "wharfie-crash-import"]),
        ("crash-open", State.FAILED, ["ended with status 5", "I cannot open"]),
        ("importerror", State.BROKEN, ["a_module_that_nobody_installed", "pip install"]),
        ("constructor", State.BROKEN, ["RuntimeError: no luck in the constructor"]),
        ("constructor-exits", State.BROKEN, ["SystemExit: leaving"]),
        ("unfit", State.UNFIT, ["acmefs is not in /proc/filesystems", "modprobe acmefs"]),
        ("openfails", State.FAILED, ["/var/acme: no space left on device"]),
        ("settings", State.MISCONFIGURED, ["drivers.volume.settings.server: missing", "wharfie-settings 1.0"]),
        ("nextmajor", State.INCOMPATIBLE, ["contract 2.0"]),
    ],
)
def test_what_cannot_be_used_says_so_and_leaves_no_process(drivers, name, state, texts):
    async def scene():
        house = drivers({f"volume.{name}": ALONE})
        with pytest.raises(Unavailable) as caught:
            await house.get(VolumeDriver, name)
        row = state_of(house, name)
        assert row.state is state and all(text in caught.value.message for text in texts)
        assert house._slots["volume", name].keeper is None
        await house.close()
        await until(lambda: not hosts())

    asyncio.run(scene())


def test_a_daemon_that_is_killed_leaves_no_process(hostile: Path, tmp_path: Path):
    script = f"""
import asyncio, os, signal, sys
sys.path.insert(0, {str(hostile)!r})
from pathlib import Path
from wharfie.engine.host import host_facts
from wharfie.plugins.drivers import Drivers
from wharfie.plugins.settings import DriverSettings
from wharfie.spi.volume import VolumeDriver
async def scene():
    house = Drivers(DriverSettings(drivers={{"volume.crashes": {{"isolate": True}}}}), state=Path({str(tmp_path)!r}) / "s",
                    run=Path({str(tmp_path)!r}) / "r", instance="00000a5e", host=host_facts())
    driver = await house.get(VolumeDriver, "crashes")
    hanging = asyncio.create_task(driver.call(VolumeDriver.create, "hang", {{}}, {{}}))
    await asyncio.sleep(0.2)
    print((await driver.call(VolumeDriver.usage, "x")).inodes, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(scene())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    asyncio.run(until(lambda: not alive(int(done.stdout))))


def test_not_found_counts_as_in_a_thread(drivers):
    async def scene():
        house = drivers({"volume.raises": ALONE})
        driver = await house.get(VolumeDriver, "raises")
        with pytest.raises(NotFound):
            await driver.call(VolumeDriver.get, "nobody")
        await driver.call(Driver.probe)
        assert driver.figures["get"].failures == 1
        await house.close()

    asyncio.run(scene())


def test_programs_that_a_driver_starts_have_the_daemons_environment(drivers, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)

    async def seen() -> str:
        house = drivers({"volume.crashes": ALONE})
        driver = await house.get(VolumeDriver, "crashes")
        found = (await driver.call(VolumeDriver.get, "x")).status["path"]
        await house.close()
        return found

    assert asyncio.run(seen()) == ""
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    assert asyncio.run(seen()) == "/nowhere"
