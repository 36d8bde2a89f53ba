"""A driver from outside the repository: built as a wheel, installed, chosen by name, used for real."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from tests.strangers import STRANGERS, build_wheel
from wharfie.engine.host import host_facts
from wharfie.plugins.drivers import Drivers
from wharfie.plugins.settings import DriverSettings
from wharfie.plugins.states import State
from wharfie.spi.driver import ContainerFacts
from wharfie.spi.errors import Conflict, InvalidArgument, NotFound, Unavailable
from wharfie.spi.network import Endpoint, Joined, Network, NetworkCapability, NetworkDriver, Pool, Sandbox
from wharfie.spi.volume import VolumeCapability, VolumeDriver

INSTANCE = "acc5f3e1"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("acme")
    build_wheel(STRANGERS / "wharfie-acme", target)
    return target


@pytest.fixture
def acme(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(wheel))
    yield
    for name in [name for name in sys.modules if name.startswith("wharfie_acme")]:
        del sys.modules[name]


def house(folder: Path, **settings: object) -> Drivers:
    return Drivers(
        DriverSettings(drivers={"volume.acme": settings}),
        state=folder / "state",
        run=folder / "run",
        instance=INSTANCE,
        host=host_facts(),
    )


def test_its_drivers_are_under_150_lines_and_import_spi_only():
    for module in (STRANGERS / "wharfie-acme" / "wharfie_acme").glob("*.py"):
        text = module.read_text()
        assert len(text.splitlines()) < 150
        assert all(
            line.startswith(("from wharfie.spi", "from wharfie_acme"))
            for line in text.splitlines()
            if "from wharfie" in line
        )


def test_volumes(acme, tmp_path: Path):
    async def scene():
        drivers = house(tmp_path, **{"folder-mode": "0750"})
        assert "acme" in drivers.known(VolumeDriver)
        acme = await drivers.get(VolumeDriver, "acme")
        assert (acme.distribution, acme.capabilities) == ("wharfie-acme 0.3", {VolumeCapability.USAGE})
        made = await acme.call(VolumeDriver.create, "data", {"owner": "1000:1001"}, {})
        assert await acme.call(VolumeDriver.create, "data", {"owner": "1000:1001"}, {}) == made
        with pytest.raises(Conflict):
            await acme.call(VolumeDriver.create, "data", {}, {})
        with pytest.raises(InvalidArgument, match="no option 'size'"):
            await acme.call(VolumeDriver.create, "more", {"size": "1"}, {})
        with pytest.raises(InvalidArgument, match="UID:GID"):
            await acme.call(VolumeDriver.create, "more", {"owner": "me"}, {})
        folder = await acme.call(VolumeDriver.mount, "data", "c1")
        assert folder == made.mountpoint and folder.is_relative_to(tmp_path / "state/volume/acme")
        found = folder.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (1000, 1001, 0o750)
        (folder / "file").write_text("kept" * 2000)
        assert (await acme.call(VolumeDriver.usage, "data")).inodes == 1
        await drivers.close()

        half_made = tmp_path / "state" / "volume" / "acme" / "work"
        (half_made / "half-made").mkdir()  # as a killed daemon leaves it
        drivers = house(tmp_path)
        acme = await drivers.get(VolumeDriver, "acme")
        assert not list(half_made.iterdir())
        assert [volume.name for volume in await acme.call(VolumeDriver.volumes)] == ["data"]
        faults = await acme.call(VolumeDriver.reconcile, {"data": frozenset({"c1"}), "lost": frozenset({"c2"})})
        assert [fault.object for fault in faults] == ["lost"]
        assert (folder / "file").read_text().startswith("kept")
        await acme.call(VolumeDriver.unmount, "data", "c1")
        await acme.call(VolumeDriver.remove, "data")
        await acme.call(VolumeDriver.remove, "data")
        with pytest.raises(NotFound):
            await acme.call(VolumeDriver.get, "data")
        await drivers.close()

    asyncio.run(scene())


def test_its_settings_are_validated(acme, tmp_path: Path):
    async def scene():
        drivers = house(tmp_path, **{"folder-mode": "rwx"})
        with pytest.raises(Unavailable, match=r"drivers\.volume\.acme\.folder-mode: 'rwx' is not valid.*wharfie-acme 0\.3"):
            await drivers.get(VolumeDriver, "acme")
        assert next(row for row in drivers.states() if row.name == "acme").state is State.MISCONFIGURED

    asyncio.run(scene())


@pytest.fixture
def sandboxes() -> Iterator[list[Sandbox]]:
    """Two network namespaces."""
    own = Path("/proc/self/ns/net").readlink()
    holders = [subprocess.Popen(["unshare", "--net", "sleep", "300"]) for _ in range(2)]
    try:
        paths = [Path(f"/proc/{holder.pid}/ns/net") for holder in holders]
        for path in paths:
            while path.readlink() == own:
                time.sleep(0.002)
        yield [Sandbox(id=str(number), path=path) for number, path in enumerate(paths)]
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()
        sweep()


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout


def sweep() -> None:
    for link in ours():
        if link in ours():  # the other end of a pair goes with the first
            ip("link", "delete", link)


def ours() -> list[str]:
    shown = ip("-json", "link", "show")
    return [
        link["ifname"]
        for link in json.loads(shown)
        if link["ifname"].startswith((f"ab{INSTANCE[:5]}", f"av{INSTANCE[:5]}"))
    ]


def inside(sandbox: Sandbox, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["nsenter", f"--net={sandbox.path}", *command], capture_output=True, text=True, check=False)


@pytest.mark.root
def test_networks(acme, tmp_path: Path, sandboxes: list[Sandbox]):
    network = Network(
        id="1f" * 32, name="front", pools=(Pool(subnet=ip_network("10.231.77.0/24"), gateway=ip_address("10.231.77.1")),)
    )
    endpoints = [
        Endpoint(
            id=f"{number}e" * 32,
            network_id=network.id,
            container=ContainerFacts(id=f"{number}c" * 32, name=f"web{number}"),
            interface="eth0",
            mac=mac,
            addresses=(ip_interface(f"10.231.77.{number}/24"),),
            default_route4=number == 2,
        )
        for number, mac in ((2, "02:42:0a:e7:4d:02"), (3, ""))
    ]

    async def scene():
        drivers = house(tmp_path)
        net = await drivers.get(NetworkDriver, "acmenet")
        assert net.capabilities == {NetworkCapability.NAMESPACE, NetworkCapability.MULTIPLE, NetworkCapability.ADDRESSES}
        with pytest.raises(InvalidArgument, match="no option 'mtu'"):
            await net.call(NetworkDriver.plan, replace(network, options={"mtu": "1400"}))
        assert await net.call(NetworkDriver.plan, network) == network
        for _ in range(2):
            await net.call(NetworkDriver.create_network, network)
        pairs = list(zip(endpoints, sandboxes, strict=True))
        joined = [
            Joined(
                endpoint=endpoint,
                sandbox=sandbox,
                attachment=await net.call(NetworkDriver.join, network, endpoint, sandbox),
            )
            for endpoint, sandbox in pairs
        ]
        assert joined[0].attachment.mac == "02:42:0a:e7:4d:02" and len(joined[1].attachment.mac) == 17
        assert inside(sandboxes[0], "busybox", "ping", "-c1", "-W5", "10.231.77.3").returncode == 0
        assert "default via 10.231.77.1" in inside(sandboxes[0], "ip", "route").stdout
        assert "default" not in inside(sandboxes[1], "ip", "route").stdout

        moved = replace(endpoints[0], default_route4=False)  # convergent: joined again with another flag
        await net.call(NetworkDriver.join, network, moved, sandboxes[0])
        assert "default" not in inside(sandboxes[0], "ip", "route").stdout

        # What a reboot of the host or a killed daemon leaves is brought back, what nobody wants goes.
        sweep()
        ip("link", "add", f"ab{INSTANCE[:5]}deadbeef", "type", "bridge")
        assert await net.call(NetworkDriver.reconcile, [network], joined) == []
        assert len(ours()) == 3 and f"ab{INSTANCE[:5]}deadbeef" not in ours()
        assert inside(sandboxes[1], "busybox", "ping", "-c1", "-W5", "10.231.77.2").returncode == 0

        with pytest.raises(NotFound, match="namespace"):
            await net.call(NetworkDriver.join, network, endpoints[0], Sandbox(id="x", path=Path("/proc/0/ns/net")))
        for one in (*joined, replace(joined[0], sandbox=None)):
            await net.call(NetworkDriver.leave, network, one)
        for _ in range(2):
            await net.call(NetworkDriver.delete_network, network)
        assert ours() == []
        await drivers.close()

    asyncio.run(scene())
