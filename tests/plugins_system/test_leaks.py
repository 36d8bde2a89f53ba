"""A driver that keeps what its calls opened is named; one that does not, is not."""

from __future__ import annotations

import asyncio

import pytest

from wharfie.plugins import leaks
from wharfie.plugins.supervisor import LEAK_WATCH
from wharfie.spi.volume import VolumeDriver


@pytest.mark.parametrize("alone", [False, True])
def test_a_driver_that_leaks_is_named(drivers, alone, monkeypatch):
    monkeypatch.setattr(LEAK_WATCH, "wanted", 1)

    async def scene():
        house = drivers({"volume.leaks": {"isolate": alone}, "volume.good": {"isolate": alone}})
        names = ("leaks", "good")
        found = {name: await house.get(VolumeDriver, name) for name in names}
        for number in range(leaks.DESCRIPTORS + 2):
            for name in names:
                await found[name].call(VolumeDriver.create, f"v{number}", {}, {})
            if number == 3:  # a few may be a cache
                assert not house.leaks("volume", "leaks")
        said = " / ".join(house.leaks("volume", "leaks"))
        assert "descriptors" in said and "/dev/null" in said and "threads" in said
        assert not house.leaks("volume", "good")
        await house.close()

    asyncio.run(scene())


def test_calls_at_the_same_time_prove_nothing(drivers, monkeypatch):
    monkeypatch.setattr(LEAK_WATCH, "wanted", 1)

    async def scene():
        house = drivers({"volume.hangs": {"deadlines": {"get": 0.2}}})
        hanging = await house.get(VolumeDriver, "hangs")
        good = await house.get(VolumeDriver, "leaks")
        slow = asyncio.create_task(hanging.call(VolumeDriver.get, "x"))
        await asyncio.sleep(0.05)
        for number in range(leaks.DESCRIPTORS + 2):
            await good.call(VolumeDriver.create, f"v{number}", {}, {})
        assert not house.leaks("volume", "leaks")
        await asyncio.gather(slow, return_exceptions=True)
        for number in range(leaks.DESCRIPTORS + 2):  # the one that hangs was given up: it does nothing
            await good.call(VolumeDriver.create, f"w{number}", {}, {})
        assert house.leaks("volume", "leaks")
        await house.close()

    asyncio.run(scene())


def test_nobody_looks_when_nobody_wants_to_know(drivers):
    async def scene():
        house = drivers()
        driver = await house.get(VolumeDriver, "leaks")
        for number in range(leaks.DESCRIPTORS + 2):
            await driver.call(VolumeDriver.create, f"v{number}", {}, {})
        assert not house.leaks("volume", "leaks")
        await house.close()

    assert not LEAK_WATCH.on
    asyncio.run(scene())
