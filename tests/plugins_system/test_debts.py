"""Removals that failed are kept and paid."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import fields
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from wharfie.plugins import debts as debts_module
from wharfie.plugins.contract import CONTRACTS, REMOVALS, methods, parameters
from wharfie.plugins.debts import TABLE, Debt, Debts
from wharfie.spi.driver import ContainerFacts
from wharfie.spi.errors import Unavailable
from wharfie.spi.network import Attachment, Endpoint, Joined, Network, NetworkDriver, Pool, Sandbox
from wharfie.spi.volume import VolumeDriver


class Memory:
    """A debt store in memory, of the metadata store's shape."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, str]] = {}

    def all(self, table: str) -> dict[str, str]:
        return dict(self.tables.get(table, {}))

    async def put(self, table: str, key: str, document: str) -> None:
        self.tables.setdefault(table, {})[key] = document

    async def delete(self, table: str, key: str) -> None:
        self.tables[table].pop(key, None)


def good_module():
    return sys.modules["hostile_drivers.good"]


def break_removal(monkeypatch, error: BaseException | None) -> list[str]:
    """From now on `remove` of the good driver raises `error`, or notes the name."""
    removed: list[str] = []

    def remove(self, name: str) -> None:
        if error is not None:
            raise error
        removed.append(name)

    monkeypatch.setattr(good_module().Good, "remove", remove)
    return removed


def test_a_removal_that_works_leaves_nothing(drivers):
    async def scene():
        store = Memory()
        debts = Debts(store, drivers())
        assert await debts.settle(VolumeDriver, "good", VolumeDriver.remove, "data")
        assert list(debts) == [] and store.all(TABLE) == {}

    asyncio.run(scene())


def test_a_failed_removal_is_owed_over_a_restart_and_paid_once(drivers, monkeypatch):
    async def scene():
        store, house = Memory(), drivers()
        debts = Debts(store, house)
        await house.get(VolumeDriver, "good")
        break_removal(monkeypatch, ValueError("no luck"))
        assert not await debts.settle(VolumeDriver, "good", VolumeDriver.remove, "data")
        assert not await debts.settle(VolumeDriver, "good", VolumeDriver.remove, name="data")
        [debt] = debts
        assert (debt.kind, debt.driver, debt.method, debt.object) == ("volume", "good", "remove", "data")
        assert debt.arguments == {"name": '"data"'} and "no luck" in debt.error
        await debts.retry()
        assert [one.tries for one in debts] == [2]

        again = Debts(store, house)  # as after a restart
        [kept] = again
        assert kept.tries == 2 and kept.id == debt.id
        removed = break_removal(monkeypatch, None)
        await again.retry()
        await again.retry()
        assert removed == ["data"]
        assert list(again) == [] and store.all(TABLE) == {}

    asyncio.run(scene())


def test_a_driver_that_is_not_there_is_owed_too(drivers, hostile: Path, monkeypatch):
    async def scene():
        debts = Debts(Memory(), drivers())
        assert not await debts.settle(VolumeDriver, "gone", VolumeDriver.unmount, "data", "c1")
        assert [debt.arguments for debt in debts] == [{"name": '"data"', "mount_id": '"c1"'}]
        await debts.retry()
        assert [debt.tries for debt in debts] == [2]

    asyncio.run(scene())


def test_what_is_owed_is_paid_before_the_name_is_used_again(drivers, monkeypatch):
    async def scene():
        house = drivers()
        debts = Debts(Memory(), house)
        await house.get(VolumeDriver, "good")
        await debts.pay(VolumeDriver, "good", "data")
        break_removal(monkeypatch, ValueError("no luck"))
        await debts.settle(VolumeDriver, "good", VolumeDriver.remove, "data")
        await debts.settle(VolumeDriver, "good", VolumeDriver.remove, "other")
        with pytest.raises(Unavailable, match=r'volume "data" cannot be made yet.*no luck'):
            await debts.pay(VolumeDriver, "good", "data")
        removed = break_removal(monkeypatch, None)
        await debts.pay(VolumeDriver, "good", "data")
        assert removed == ["data"] and [debt.object for debt in debts] == ["other"]

    asyncio.run(scene())


def test_a_hanging_driver_costs_one_try_for_all_its_debts(drivers, monkeypatch):
    async def scene():
        house = drivers({"volume.hangs": {"deadlines": {"remove": 0.1}}})
        store = Memory()
        for number in range(8):
            debt = Debt(
                id=str(number),
                kind="volume",
                driver="hangs",
                method="remove",
                object=f"v{number}",
                arguments={"name": f'"v{number}"'},
            )
            await store.put(TABLE, debt.id, json.dumps({one.name: getattr(debt, one.name) for one in fields(debt)}))
        debts = Debts(store, house)
        await debts.retry()
        assert [debt.tries for debt in debts] == [2] + [1] * 7
        assert (await house.get(VolumeDriver, "hangs")).supervisor.lost == 1

    asyncio.run(scene())


def test_debts_are_paid_at_the_start_each_minute_and_when_the_driver_recovers(drivers, monkeypatch):
    async def scene():
        house = drivers()
        debts = Debts(Memory(), house)
        driver = await house.get(VolumeDriver, "good")
        break_removal(monkeypatch, ValueError("no luck"))
        await debts.settle(VolumeDriver, "good", VolumeDriver.remove, "data")

        async def tries(number: int) -> None:
            async with asyncio.timeout(20):
                while [debt.tries for debt in debts] != [number]:  # noqa: ASYNC110  # it is counted elsewhere
                    await asyncio.sleep(0.002)

        running = asyncio.create_task(debts.run())
        await tries(2)
        circuit = driver.supervisor.circuit
        for _ in range(5):
            circuit.failed("broken")
        circuit._until = 0.0  # the pause is over
        await driver.call(VolumeDriver.volumes)
        await tries(3)
        running.cancel()
        await asyncio.wait([running])
        monkeypatch.setattr(debts_module, "INTERVAL", 0.01)
        running = asyncio.create_task(debts.run())
        await tries(6)
        running.cancel()

    asyncio.run(scene())


def test_every_removal_of_every_contract_exists_and_its_arguments_can_be_kept():
    assert set(REMOVALS) == set(CONTRACTS)
    for kind, names in REMOVALS.items():
        for name in names:
            assert methods(CONTRACTS[kind])[name].always
            for hint in parameters(CONTRACTS[kind], name).values():
                TypeAdapter(hint)


def test_a_networks_objects_survive_the_store(drivers):
    network = Network(
        id="a" * 64, name="front", pools=(Pool(subnet=ip_network("10.9.0.0/24"), gateway=ip_address("10.9.0.1")),)
    )
    endpoint = Endpoint(
        id="e" * 64,
        network_id=network.id,
        container=ContainerFacts(id="c" * 64, name="web"),
        interface="eth0",
        mac="",
        addresses=(),
    )
    joined = Joined(
        endpoint=endpoint,
        sandbox=Sandbox(id="s", path=Path("/proc/1/ns/net")),
        attachment=Attachment(interface="eth0", mac="02:42:0a:09:00:02", data={"veth": "v1"}),
    )

    async def scene():
        store = Memory()
        debts = Debts(store, drivers())
        assert not await debts.settle(NetworkDriver, "gone", NetworkDriver.leave, network, joined)
        [debt] = Debts(store, drivers())
        types = parameters(NetworkDriver, "leave")
        kept = {name: TypeAdapter(types[name]).validate_json(text) for name, text in debt.arguments.items()}
        assert kept == {"network": network, "joined": joined}
        assert debt.object == "front"

    asyncio.run(scene())
