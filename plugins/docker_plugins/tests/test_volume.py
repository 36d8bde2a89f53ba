"""Volumes by a legacy plugin."""

from __future__ import annotations

import pytest

from wharfie.spi.errors import DriverError, InvalidArgument, NotFound
from wharfie.spi.volume import VolumeCapability


@pytest.fixture
def server(plugins):
    return plugins("data", "VolumeDriver")


@pytest.fixture
def driver(server, make):
    return make("volume", "data")


def test_the_whole_life_of_a_volume(driver, server):
    assert driver.capabilities() == {VolumeCapability.GLOBAL}
    volume = driver.create("v", {"a": "b"}, {"l": "x"})
    assert server.calls("Create") == [("VolumeDriver.Create", {"Name": "v", "Opts": {"a": "b"}})]
    assert (volume.name, volume.created) == ("v", "2026-01-02T03:04:05Z")
    path = driver.mount("v", "c1")
    assert path == volume.mountpoint
    assert driver.mount("v", "c2") == path
    assert driver.get("v").status == {"uses": 2}
    driver.unmount("v", "c1")
    driver.unmount("v", "c1")
    assert len(server.calls("Unmount")) == 1
    with pytest.raises(DriverError, match=r"VolumeDriver.Remove: volume is mounted"):
        driver.remove("v")
    driver.unmount("v", "c2")
    driver.remove("v")
    driver.remove("v")
    driver.unmount("v", "c2")
    assert driver.volumes() == []
    with pytest.raises(NotFound, match="no such volume"):
        driver.get("v")


def test_errors_are_the_plugins_own_words(driver):
    with pytest.raises(DriverError, match=r"VolumeDriver.Create: told to fail"):
        driver.create("v", {"fail": "1"}, {})
    with pytest.raises(NotFound, match="no such volume"):
        driver.mount("v", "c1")
    with pytest.raises(InvalidArgument, match="invalid option color"):
        driver.create("v", {"color": "red"}, {})


def test_a_method_that_is_absent_is_an_ability_that_is_absent(plugins, make):
    plugins("old", "VolumeDriver", "--without", "Capabilities")
    assert make("volume", "old").capabilities() == frozenset()


def test_uses_that_a_killed_daemon_left_are_undone_and_those_that_hold_are_told_again(driver, server, make):
    for name in ("kept", "left"):
        driver.create(name, {}, {})
        driver.mount(name, "c1")
        driver.mount(name, "c2")
    server.stop()
    server.start()  # it has forgotten its uses
    driver.create("kept", {}, {})
    again = make("volume", "data")
    server.state.joinpath("calls.jsonl").unlink()
    faults = again.reconcile({"kept": frozenset({"c1"})})
    assert ("VolumeDriver.Mount", {"Name": "kept", "ID": "c1"}) in server.calls()
    told = [asked for _, asked in server.calls("Unmount")]
    assert sorted((one["Name"], one["ID"]) for one in told) == [("kept", "c2"), ("left", "c1"), ("left", "c2")]
    assert all("not mounted" in fault.reason for fault in faults)
    again.mount("left", "c3")
    driver = make("volume", "data")
    assert all(fault.object in ("kept", "left") for fault in driver.reconcile({}))
    assert driver.get("left").status == {"uses": 0}


def test_volumes_removed_behind_our_back_are_no_fault(driver, server):
    driver.create("v", {}, {})
    driver.mount("v", "c1")
    (server.state / "volumes" / "v").rmdir()
    driver.unmount("v", "c1")
    driver.remove("v")
    assert driver.reconcile({}) == []
