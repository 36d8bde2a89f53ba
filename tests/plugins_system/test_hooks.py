"""Hook plugins: loaded one by one, called one by one, none of them can hurt the others."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.strangers.hostile import HOOKS, Stranger, install
from wharfie.plugins.feed import Feed
from wharfie.plugins.hooks import Hooks
from wharfie.plugins.inventory import Inventory
from wharfie.plugins.settings import DriverSettings
from wharfie.plugins.states import State
from wharfie.spi.driver import ContainerFacts
from wharfie.spi.errors import Conflict, Forbidden, NotFound, Unavailable, WharfieError
from wharfie.spi.hooks import Event
from wharfie.spi.volume import VolumeDriver


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "hooks"
    install(folder, *HOOKS)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in [name for name in sys.modules if name.startswith("hostile_drivers")]:
        del sys.modules[name]


async def loaded(required: tuple[str, ...] = (), disabled: tuple[str, ...] = ()) -> Hooks:
    hooks = Hooks(Inventory(), DriverSettings(required=frozenset(required), disabled=frozenset(disabled)))
    await hooks.load()
    return hooks


WEB = ContainerFacts(id="1" * 64, name="web")


def event(action: str) -> Event:
    return Event(type="container", action=action, actor="1", attributes={}, time_ns=0)


def eventually(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_each_plugin_is_judged_alone(site: Path):
    async def scene():
        hooks = await loaded(disabled=("hook-second",))
        await hooks.load()
        return {row.name: row for row in hooks.states() if row.name.startswith("hook-")}  # others may be installed

    rows = asyncio.run(scene())
    assert {name: row.state for name, row in rows.items()} == {
        "hook-good": State.OPEN,
        "hook-second": State.DISABLED,
        "hook-raises": State.OPEN,
        "hook-exits": State.BROKEN,
        "hook-misspelt": State.BROKEN,
        "hook-coroutine": State.BROKEN,
        "hook-argument": State.BROKEN,
        "hook-class": State.BROKEN,
        "hook-settings": State.OPEN,
        "hook-empty": State.BROKEN,
    }
    assert "SystemExit: 3" in rows["hook-exits"].cause
    assert "admit_imagge" in rows["hook-misspelt"].cause
    assert "admit_image as a coroutine" in rows["hook-coroutine"].cause
    assert "colour" in rows["hook-argument"].cause
    assert "is a class" in rows["hook-class"].cause
    assert "hookimpl" in rows["hook-empty"].cause
    assert "hostile_drivers.hook_second" not in sys.modules
    assert all(row.kind == "hook" and row.distribution == f"wharfie-{name}" for name, row in rows.items())


def test_two_distributions_with_one_name_are_refused(site: Path):
    install(site, Stranger("wharfie-impostor", "hook-good", "hook_second:PLUGIN", group="wharfie.plugins"))

    async def scene():
        hooks = await loaded()
        return next(row for row in hooks.states() if row.name == "hook-good")

    row = asyncio.run(scene())
    assert row.state is State.DUPLICATE
    assert "wharfie-hook-good 1.0 and wharfie-impostor 1.0" in row.cause


def test_additions_of_all_plugins_come_together_and_a_failing_one_is_skipped(site: Path, caplog):
    async def scene():
        return await (await loaded()).adjust_container(WEB, {})

    adjustment = asyncio.run(scene())
    assert adjustment.env == {"FROM_GOOD": "web", "FROM_SECOND": "x"}
    assert adjustment.annotations == {"org.example.good": "1"}
    assert adjustment.mounts == ({"destination": "/second"},)
    assert 'plugin "hook-raises" (wharfie-hook-raises 1.0) is skipped' in caplog.text


def test_an_addition_of_the_wrong_types_is_the_plugins_failure(site: Path, caplog):
    async def scene():
        return await (await loaded()).adjust_container(ContainerFacts(id="3" * 64, name="lies"), {})

    assert asyncio.run(scene()).env == {"FROM_GOOD": "lies", "FROM_SECOND": "x"}
    assert 'plugin "hook-raises"' in caplog.text


def test_two_plugins_that_set_the_same_are_a_conflict_that_names_both(site: Path):
    async def scene():
        with pytest.raises(Conflict) as caught:
            await (await loaded()).adjust_container(ContainerFacts(id="2" * 64, name="clash"), {})
        return caught.value.message

    message = asyncio.run(scene())
    assert 'plugin "hook-good"' in message and 'plugin "hook-second"' in message and "env FROM_GOOD" in message


def test_an_image_is_denied_by_name_of_the_plugin(site: Path):
    async def scene():
        hooks = await loaded()
        await hooks.admit_image("busybox", "sha256:0", b"{}")
        with pytest.raises(Forbidden, match=r'evil:1 is denied by plugin "hook-good" .*: it is evil'):
            await hooks.admit_image("evil:1", "sha256:0", b"{}")

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hook-exits", "cannot be imported.*requires it"),
        ("hook-raises", "requires this plugin"),
        ("hook-nowhere", "required by daemon.json and not installed"),
    ],
)
def test_a_required_plugin_that_is_missing_broken_or_failing_refuses(site: Path, name: str, text: str):
    async def scene():
        hooks = await loaded(required=(name,))
        with pytest.raises(Unavailable, match=text):
            await hooks.adjust_container(WEB, {})
        with pytest.raises(Unavailable, match=text):
            await hooks.admit_image("busybox", "sha256:0", b"{}")
        assert name in {row.name for row in hooks.states()}

    asyncio.run(scene())


def test_events_reach_each_plugin_in_order_and_a_failing_one_only_itself(site: Path):
    async def scene():
        hooks = await loaded()
        for action in ("create", "explode", "start", "die"):
            hooks.on_event(event(action))
        seen = sys.modules["hostile_drivers.hook_good"].SEEN
        await asyncio.to_thread(eventually, lambda: len(seen) == 3)
        hooks.close()
        return seen

    assert asyncio.run(scene()) == ["create", "start", "die"]


def test_a_slow_plugin_loses_its_oldest_events_and_holds_up_nobody():
    import threading

    gate, seen = threading.Event(), []
    feed = Feed("slow", lambda one: (gate.wait(30), seen.append(one.action)), capacity=10)
    feed.offer(event("first"))
    eventually(lambda: not feed._events)
    for number in range(25):
        feed.offer(event(str(number)))
    assert feed.dropped == 15
    gate.set()
    eventually(lambda: len(seen) == 11)
    assert seen == ["first", *(str(number) for number in range(15, 25))]
    feed.close()


def state_of(house, name: str):
    return next(row for row in house.states() if row.name == name)


def test_a_driver_that_a_plugin_finds_has_a_process_too(site: Path, drivers):
    async def scene():
        house = drivers({"volume.dynamic": {"isolate": True}})
        driver = await house.get(VolumeDriver, "dynamic")
        assert (await driver.call(VolumeDriver.create, "data", {}, {})).name == "data"
        first = house.facts("volume", "dynamic")["Pid"]
        assert first not in (0, os.getpid())
        assert state_of(house, "dynamic").distribution == "wharfie-hook-good"
        os.kill(first, signal.SIGKILL)
        await asyncio.to_thread(eventually, lambda: house.facts("volume", "dynamic")["Pid"] not in (0, first))
        await asyncio.to_thread(eventually, lambda: state_of(house, "dynamic").state is State.OPEN)
        assert (await driver.call(VolumeDriver.create, "more", {}, {})).name == "more"
        await house.close()

    asyncio.run(scene())


def test_a_driver_that_its_plugin_only_finds_in_the_daemon(site: Path, drivers):
    async def scene():
        house = drivers({"volume.here": {"isolate": True}})
        await house.hooks.load()
        plugin = sys.modules["hostile_drivers.hook_good"]
        plugin.HERE["here"] = type("Here", (plugin.Dynamic,), {"name": "here"})
        words = 'plugin "hook-good" does not find volume driver "here" in a process of its own'
        with pytest.raises(WharfieError, match=words):
            await house.get(VolumeDriver, "here")
        assert state_of(house, "here").state is State.FAILED
        await house.close()

    asyncio.run(scene())


def test_a_driver_that_exists_only_at_run_time(site: Path, drivers):
    async def scene():
        house = drivers()
        with pytest.raises(NotFound, match="dynamic"):
            await house.get(VolumeDriver, "dinamic")
        assert "dynamic" in house.known(VolumeDriver)
        house = drivers({"volume.dynamic": {}})  # settings make it a row before its first use
        await house.start()
        assert "dynamic" in house.known(VolumeDriver)
        assert next(row for row in house.states() if row.name == "dynamic").state is State.INSTALLED
        driver = await house.get(VolumeDriver, "dynamic")
        await driver.call(VolumeDriver.create, "data", {}, {})
        row = next(row for row in house.states() if row.name == "dynamic")
        assert await house.hooks.doctor_checks()
        await house.close()
        return driver.distribution, row.state

    assert asyncio.run(scene()) == ("wharfie-hook-good 1.0", State.OPEN)


async def with_settings(**plugins) -> Hooks:
    hooks = Hooks(Inventory(), DriverSettings(plugins=plugins))
    await hooks.load()
    return hooks


def heard() -> list:
    return sys.modules["hostile_drivers.hook_settings"].HEARD


def test_a_plugin_gets_its_settings_and_others_when_they_change(site: Path):
    async def scene():
        hooks = await with_settings(**{"hook-settings": {"deny": "bad"}})
        assert [one.deny for one in heard()] == ["bad"]
        await hooks.admit_image("good", "sha256:0", b"{}")
        with pytest.raises(Forbidden, match="index 'sha256:1', repository None"):
            await hooks.admit_image("bad", "sha256:0", b"{}", "sha256:1")
        await hooks.reconfigure({"hook-settings": {"deny": "bad"}})
        assert len(heard()) == 1  # nothing has changed
        await hooks.reconfigure({})
        assert heard()[-1] is None
        await hooks.admit_image("bad", "sha256:0", b"{}")

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        ("hook-settings", {"colour": 1}, r"plugins\.hook-settings\.colour: no such key; known are deny, fail"),
        ("hook-settings", {"deny": 5}, r"plugins\.hook-settings\.deny: 5 is not valid.*reload it with SIGHUP"),
        ("hook-settings", {"fail": True}, "no such server"),
        ("hook-good", {"a": 1}, r"plugins\.hook-good\.a: plugin .* takes no settings"),
        ("hook-nowhere", {}, "required by daemon.json and not installed"),
        ("hook-exits", {}, "cannot be imported"),
    ],
)
def test_who_gives_a_plugin_settings_relies_on_it(site: Path, name: str, settings: dict, text: str):
    async def scene():
        hooks = await with_settings(**{name: settings})
        with pytest.raises(Unavailable, match=text):
            await hooks.admit_image("x", "sha256:0", b"{}")
        with pytest.raises(Unavailable, match=text):
            await hooks.adjust_container(WEB, {})
        assert {row.name: row for row in hooks.states()}[name].cause
        await hooks.reconfigure({})
        await hooks.admit_image("x", "sha256:0", b"{}")

    asyncio.run(scene())


def test_a_plugin_whose_settings_are_wrong_is_not_asked(site: Path):
    async def scene():
        hooks = await with_settings(**{"hook-settings": {"deny": "bad"}})
        await hooks.reconfigure({"hook-settings": {"deny": 5}})
        await hooks.reconfigure({"hook-settings": {"deny": "bad"}})
        with pytest.raises(Forbidden):
            await hooks.admit_image("bad", "sha256:0", b"{}")
        assert await hooks.known_drivers("volume") == ["dynamic"]

    asyncio.run(scene())
