"""A driver's part of daemon.json: errors name key, value, expected type and distribution."""

from __future__ import annotations

import asyncio

import pytest

from wharfie.plugins.settings import DriverSettings
from wharfie.plugins.states import State
from wharfie.spi.driver import Driver
from wharfie.spi.errors import InvalidArgument, Unavailable
from wharfie.spi.volume import VolumeDriver


def refused(drivers, name, given):
    async def scene():
        house = drivers({f"volume.{name}": given})
        with pytest.raises(Unavailable) as caught:
            await house.get(VolumeDriver, name)
        row = next(row for row in house.states() if (row.kind, row.name) == ("volume", name))
        assert row.state is State.MISCONFIGURED
        return caught.value.message

    return asyncio.run(scene())


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ({}, ["drivers.volume.settings.server: missing, expected str", "wharfie-settings 1.0"]),
        ({"server": 5}, ["drivers.volume.settings.server: 5 is not valid, expected str", "valid string"]),
        ({"server": "x", "retries": "many"}, ["drivers.volume.settings.retries: 'many' is not valid, expected int"]),
        (
            {"server": "x", "retries": -1},
            ["drivers.volume.settings.retries: -1 is not valid", "greater than or equal to 0"],
        ),
        (
            {"server": "x", "sever": "y"},
            [
                "drivers.volume.settings.sever: no such key",
                "known are api-token, retries, server, isolate, deadlines, workers",
            ],
        ),
        ({"retries": "many", "server": []}, ["settings.server: []", "settings.retries: 'many'"]),
        ({"server": "x" * 500, "retries": {"a": "y" * 500}}, ["..."]),
    ],
)
def test_values_that_do_not_validate(drivers, given, texts):
    message = refused(drivers, "settings", given)
    for text in texts:
        assert text in message
    assert len(message) < 600 and "\n" not in message


def test_a_secret_is_not_shown(drivers):
    message = refused(drivers, "settings", {"server": "x", "api-token": "very-secret-token"})
    assert "drivers.volume.settings.api-token: the value (not shown) is not valid" in message
    assert "very-secret-token" not in message


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"isolate": "yes"}, "drivers.volume.good.isolate: 'yes' is not valid, expected true or false"),
        ({"workers": 0}, "drivers.volume.good.workers: 0 is not valid, expected a whole number from 1 to 256"),
        ({"workers": True}, "drivers.volume.good.workers: True"),
        ({"deadlines": 5}, "drivers.volume.good.deadlines: 5"),
        ({"deadlines": {"mout": 5}}, "drivers.volume.good.deadlines.mout: there is no such method; known are capabilities"),
        ({"deadlines": {"mount": "5s"}}, "drivers.volume.good.deadlines.mount: '5s' is not valid"),
        ({"deadlines": {"mount": 0}}, "drivers.volume.good.deadlines.mount: 0 is not valid"),
        ({"size": 1, "path": 2}, "drivers.volume.good.size, drivers.volume.good.path: volume driver"),
    ],
)
def test_the_keys_of_the_core(drivers, given, text):
    assert text in refused(drivers, "good", given)


def test_valid_settings_reach_the_driver_without_the_keys_of_the_core(drivers):
    async def scene():
        house = drivers(
            {"volume.settings": {"server": "10.0.0.5", "workers": 2, "deadlines": {"mount": 5}, "isolate": False}}
        )
        driver = await house.get(VolumeDriver, "settings")
        return await driver.call(Driver.status)

    assert asyncio.run(scene()) == [("server", "10.0.0.5"), ("retries", "3")]


@pytest.mark.parametrize("key", ["acme", "volum.acme", "volume.", ".acme", "volume"])
def test_a_key_that_names_no_driver_is_refused_at_once(key):
    with pytest.raises(InvalidArgument, match=r"drivers\..*KIND\.NAME"):
        DriverSettings(drivers={key: {}})


def test_a_driver_that_is_configured_and_not_installed_is_shown(drivers):
    async def scene():
        return drivers({"volume.nowhere": {}}).states()

    row = next(row for row in asyncio.run(scene()) if row.name == "nowhere")
    assert row.state is State.ABSENT and row.remedy


def test_settings_must_be_an_object():
    with pytest.raises(InvalidArgument, match=r"drivers\.volume\.acme: 5"):
        DriverSettings(drivers={"volume.acme": 5})
