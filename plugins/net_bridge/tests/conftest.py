"""A host of the test's own: a network namespace with outside neighbours and containers, all of it gone afterwards.

The test's main thread lives in that namespace, so the driver under test takes it for the host and the machine's own
interfaces and firewall stay untouched.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import signal
import socket
import subprocess
import threading
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest
from wharfie_net_bridge.driver import BridgeDriver
from wharfie_net_bridge.settings import BridgeSettings

from wharfie.shim.netns import within
from wharfie.shim.system import CLONE_NEWNET, setns, unshare
from wharfie.spi.driver import ContainerFacts, Context, HostFacts
from wharfie.spi.network import Endpoint, Joined, Network, Pool, Port, Sandbox

INSTANCE = "0b5e55ed"
REACHED, LOST = 5.0, 0.4
"""Seconds to wait for an answer that must come, and for one that must not."""


def sh(command: str) -> str:
    return subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout


class Place:
    """A network namespace: the host, a container, a neighbour of the host."""

    def __init__(self, name: str, path: Path, pid: int) -> None:
        self.name = name
        self.path = path
        self.pid = pid
        self._sockets: list[socket.socket] = []

    def sh(self, command: str) -> str:
        return sh(f"nsenter --net={self.path} sh -c '{command}'")

    def serve(self, port: int, kind: str = "tcp", address: str = "") -> None:
        """Answer everyone at `port` with this place's name and the caller's address."""
        type_ = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
        family = socket.AF_INET if address and ip_address(address).version == 4 else socket.AF_INET6
        server = within(self.path, lambda: socket.socket(family, type_))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address or "::", port))
        if kind == "tcp":
            server.listen(64)
        self._sockets.append(server)
        threading.Thread(target=self._tcp if kind == "tcp" else self._udp, args=(server,), daemon=True).start()

    def _tcp(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, peer = server.accept()
                with connection:
                    connection.sendall(f"{self.name} {_plain(peer[0])}".encode())

    def _udp(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                _, peer = server.recvfrom(100)
                if peer is None:  # shut down
                    return
                server.sendto(f"{self.name} {_plain(peer[0])}".encode(), peer)

    def ask(self, address: str, port: int, kind: str = "tcp", *, wait: float = REACHED, source: str = "") -> str:
        """What answers at address:port: "name caller's-address"; "" when nobody does."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        type_ = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
        with within(self.path, lambda: socket.socket(family, type_)) as client:
            client.settimeout(wait)
            try:
                if source:
                    client.bind((source, 0))
                client.connect((address, port))
                if kind == "udp":
                    client.send(b"?")
                return client.recv(100).decode()
            except OSError:
                return ""

    def lost(self, address: str, port: int, kind: str = "tcp") -> bool:
        return self.ask(address, port, kind, wait=LOST) == ""

    def close(self) -> None:
        for server in self._sockets:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()


def _plain(address: str) -> str:
    return address.removeprefix("::ffff:")


def network(number: int = 0, *, subnets: tuple[str, ...] = (), draft: bool = False, **given: object) -> Network:
    """Network number `number`: 10.212.<number>.0/24, and fd12:212:<number>::/64 when it has IPv6."""
    if not subnets:
        subnets = (f"10.212.{number}.0/24",) + ((f"fd12:212:{number}::/64",) if given.get("ipv6") else ())
    pools = tuple(Pool(subnet=ip_network(subnet), gateway=ip_network(subnet)[1]) for subnet in subnets)
    return Network(id=f"{number:02x}" * 32, name=f"net{number}", pools=() if draft else pools, **given)


def port(text: str) -> Port:
    """ "0.0.0.0:8080:80/tcp"."""
    host, _, protocol = text.partition("/")
    address, outside, inside = host.rsplit(":", 2)
    return Port(
        protocol=protocol or "tcp",
        container_port=int(inside),
        host_address=ip_address(address.strip("[]")),
        host_port=int(outside),
    )


def links() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


def elements(instance: str = INSTANCE) -> dict[str, list[object]]:
    """What is in the sets and maps of the driver's table."""
    items = json.loads(sh(f"nft -j list table inet wharfie_{instance}"))["nftables"]
    return {
        found["name"]: found.get("elem", []) for item in items for kind, found in item.items() if kind in ("set", "map")
    }


class World:
    """The host, what is around it, and the driver."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._drivers: list[BridgeDriver] = []
        self.host = Place("host", Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"), os.getpid())
        self._places = [self.host]

    def driver(self, instance: str = INSTANCE, **settings: object) -> BridgeDriver:
        run = self.folder / instance
        run.mkdir(exist_ok=True)
        context = Context(
            state=run,
            run=run,
            instance=instance,
            log=logging.getLogger("test"),
            host=HostFacts(kernel=(6, 1), architecture="amd64", cgroup="v2", cpus=2, memory=1 << 30),
            emit=lambda event: None,
        )
        driver = BridgeDriver(context, BridgeSettings.model_validate(settings))
        assert list(driver.check()) == []
        driver.open()
        self._drivers.append(driver)
        return driver

    def place(self, name: str) -> Place:
        """A new namespace, held by a process."""
        process = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo ready; exec sleep 600"], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        process.stdout.close()
        self._processes[name] = process
        place = Place(name, Path(f"/proc/{process.pid}/ns/net"), process.pid)
        self._places.append(place)
        return place

    def end(self, place: Place) -> None:
        """The container exits."""
        place.close()
        process = self._processes.pop(place.name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def neighbour(self, name: str, number: int) -> Place:
        """A machine on a network of its own with the host, which it uses as its router."""
        place = self.place(name)
        sh(f"ip link add out{number} type veth peer name eth0 netns {place.pid}")
        sh(f"ip addr add 10.213.{number}.1/24 dev out{number}; ip addr add fd12:213:{number}::1/64 dev out{number} nodad")
        sh(f"ip link set out{number} up")
        place.sh(f"ip addr add 10.213.{number}.2/24 dev eth0; ip addr add fd12:213:{number}::2/64 dev eth0 nodad")
        place.sh("ip link set lo up; ip link set eth0 up")
        place.sh(f"ip route add default via 10.213.{number}.1; ip -6 route add default via fd12:213:{number}::1")
        return place

    def container(self, driver: BridgeDriver, name: str) -> Container:
        return Container(self, driver, name)

    network = staticmethod(network)
    port = staticmethod(port)
    sh = staticmethod(sh)
    links = staticmethod(links)
    elements = staticmethod(elements)
    instance = INSTANCE

    def close(self) -> None:
        for place in self._places:
            place.close()
        for process in self._processes.values():
            process.send_signal(signal.SIGKILL)
            process.wait()
        for driver in self._drivers:
            driver.close()


@pytest.fixture
def world(tmp_path):
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    unshare(CLONE_NEWNET)
    world = World(tmp_path)
    try:
        sh("ip link set lo up; sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0")
        yield world
    finally:
        world.close()
        setns(home, CLONE_NEWNET)
        os.close(home)


@pytest.fixture
def driver(world):
    return world.driver()


class Container:
    """An endpoint in a sandbox, brought through the driver's calls as the core would."""

    def __init__(self, world: World, driver: BridgeDriver, name: str) -> None:
        self.world = world
        self.driver = driver
        self.name = name
        self.place = world.place(name)
        self.sandbox = Sandbox(id=name, path=self.place.path)

    def join(self, net: Network, host: int, *, interface: str = "eth0", route: bool = True, **given: object) -> Joined:
        """With address number `host` of each of the network's subnets."""
        addresses = tuple(ip_interface((pool.subnet[host], pool.subnet.prefixlen)) for pool in net.pools)
        endpoint = Endpoint(
            **{
                "id": hashlib.sha256(f"{net.name} {self.name}".encode()).hexdigest(),
                "network_id": net.id,
                "container": ContainerFacts(id="c" * 64, name=self.name),
                "interface": interface,
                "mac": "",
                "addresses": addresses,
                "default_route4": route,
                "default_route6": route,
                **given,
            }
        )
        attachment = self.driver.join(net, endpoint, self.sandbox)
        return Joined(endpoint=endpoint, sandbox=self.sandbox, attachment=attachment)
