"""What the rules of network drivers have at hand: networks, endpoints, and places to join."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, ClassVar

from wharfie.kit.contract import Contract
from wharfie.kit.crash import Operation
from wharfie.kit.place import Place, ip
from wharfie.kit.rig import Rig
from wharfie.kit.rules import require
from wharfie.spi.driver import ContainerFacts, Strings
from wharfie.spi.errors import WharfieError
from wharfie.spi.network import Attachment, Endpoint, Joined, Network, NetworkCapability, NetworkDriver, Pool, Port, Sandbox

HOST, NEIGHBOUR = "192.0.2.1", "192.0.2.2"
Net = NetworkDriver


class NetworkWorld(Contract[NetworkDriver]):
    """`options`: of every network of the tests; "{number}" in a value is the network's number. `bad_option`: one that must
    be refused."""

    kind: ClassVar[str] = "network"
    needs_root: ClassVar[bool] = True
    abilities: ClassVar[Any] = {NetworkCapability.PUBLISH: ("publish", "unpublish")}

    options: ClassVar[Strings] = {}
    bad_option: ClassVar[Strings] = {}

    def world(self, rig: Rig[Net]) -> None:
        self.outside = Place()
        ip("link", "add", "kit0", "type", "veth", "peer", "name", "eth0", "netns", str(self.outside.pid))
        ip("address", "add", f"{HOST}/24", "dev", "kit0")
        ip("link", "set", "kit0", "up")
        self.outside.ip("address", "add", f"{NEIGHBOUR}/24", "dev", "eth0")
        self.outside.ip("link", "set", "eth0", "up")

    def draft(self, driver: Net, number: int) -> Network:
        abilities = driver.capabilities()
        subnet = ip_network(f"10.77.{number}.0/24")
        pools = (Pool(subnet=subnet, gateway=subnet[1]),) if NetworkCapability.ADDRESSES in abilities else ()
        return Network(
            id=made_id("network", number),
            name=f"kit{number}",
            pools=pools,
            default=NetworkCapability.MULTIPLE not in abilities,
            options={key: value.replace("{number}", str(number)) for key, value in self.options.items()},
        )

    def planned(self, driver: Net, number: int) -> Network:
        """As the core does it: a network that needs no gateway gets none."""
        network = driver.plan(self.draft(driver, number))
        return (
            network
            if network.needs_gateway
            else replace(network, pools=tuple(replace(p, gateway=None) for p in network.pools))
        )

    def network(self, driver: Net, number: int) -> Network:
        network = self.planned(driver, number)
        driver.create_network(network)
        return network

    def endpoint(self, network: Network, number: int, *, route: bool = True, interface: str = "eth0") -> Endpoint:
        name = f"kit-{number}"
        subnets = [pool.subnet for pool in network.pools]
        return Endpoint(
            id=made_id("endpoint", network.id, number),
            network_id=network.id,
            container=ContainerFacts(id=made_id("container", number), name=name, hostname=name),
            interface=interface,
            mac=f"02:42:0a:4d:{int(network.id[:2], 16):02x}:{number:02x}",
            addresses=tuple(ip_interface(f"{subnet[10 + number]}/{subnet.prefixlen}") for subnet in subnets),
            default_route4=route,
        )

    def join(self, driver: Net, network: Network, place: Place, number: int = 1, **how: Any) -> Joined:
        endpoint = self.endpoint(network, number, **how)
        sandbox = Sandbox(id=endpoint.container.id, path=place.path)
        return Joined(endpoint=endpoint, sandbox=sandbox, attachment=driver.join(network, endpoint, sandbox))

    @contextmanager
    def joined(self, driver: Net, number: int = 1) -> Iterator[tuple[Network, Joined, Place]]:
        place = Place()
        try:
            network = self.network(driver, number)
            joined = self.join(driver, network, place)
            yield network, joined, place
            driver.leave(network, joined)
            driver.delete_network(network)
        finally:
            place.close()

    def life(self, rig: Rig[Net], driver: Net, number: int) -> None:
        abilities = driver.capabilities()
        with self.joined(driver, number) as (network, joined, place):
            self.verify(driver, place, joined)
            driver.describe(network, joined)
            if NetworkCapability.PUBLISH in abilities:
                published = with_port(joined, 8000 + number)
                driver.publish(network, published)
                driver.unpublish(network, published)

    def shared(self, rig: Rig[Net], driver: Net) -> Callable[[], None]:
        self._place = Place()
        self._network = self.network(driver, 1)

        def finish() -> None:
            joined = self.join(driver, self._network, self._place)
            self.verify(driver, self._place, joined)
            driver.leave(self._network, joined)
            driver.delete_network(self._network)
            require(not self._place.interfaces(), "after leave the sandbox has still an interface")
            self._place.close()

        return finish

    def share(self, rig: Rig[Net], driver: Net, number: int) -> None:
        try:
            self.join(driver, self._network, self._place)
        except WharfieError:
            pass  # one of two at a time may lose, what counts is what is there in the end

    def operations(self, rig: Rig[Net]) -> Sequence[Operation[Net]]:
        place = Place()

        def take_back(driver: Net, memo: tuple[Network, Joined]) -> None:
            network, joined = memo
            if joined.ports:
                driver.unpublish(network, joined)
            driver.leave(network, joined)
            driver.delete_network(network)
            driver.reconcile([], [])
            require(not place.interfaces(), f"the sandbox has still {place.interfaces()}")

        def before_create(driver: Net) -> tuple[Network, Joined]:
            network = self.planned(driver, 1)
            endpoint = self.endpoint(network, 1)
            return network, Joined(endpoint=endpoint, sandbox=None, attachment=no_attachment(endpoint))

        def before_join(driver: Net) -> tuple[Network, Joined]:
            network, joined = before_create(driver)
            driver.create_network(network)
            return network, replace(joined, sandbox=Sandbox(id=joined.endpoint.container.id, path=place.path))

        def before_leave(driver: Net) -> tuple[Network, Joined]:
            network = self.network(driver, 1)
            return network, self.join(driver, network, place)

        def before_publish(driver: Net) -> tuple[Network, Joined]:
            network, joined = before_leave(driver)
            return network, with_port(joined, 8080)

        def forget(driver: Net, memo: Any) -> None:
            driver.reconcile([], [])

        def keep_network(driver: Net, memo: tuple[Network, Joined]) -> None:
            require(not driver.reconcile([memo[0]], []), "reconcile finds a fault with the network")

        def keep_joined(driver: Net, memo: tuple[Network, Joined]) -> None:
            faults = driver.reconcile([memo[0]], [replace(memo[1], ports=())])
            require(not faults, f"reconcile finds faults: {list(faults)}")

        def do_join(driver: Net, memo: tuple[Network, Joined]) -> object:
            sandbox = memo[1].sandbox
            return driver.join(memo[0], memo[1].endpoint, sandbox) if sandbox else None

        def is_joined(driver: Net, memo: tuple[Network, Joined]) -> None:
            if memo[1].sandbox:
                self.verify(driver, place, memo[1])

        def is_out(driver: Net, memo: Any) -> None:
            require(not place.interfaces(), f"after leave the sandbox has {place.interfaces()}")

        def is_published(driver: Net, memo: Any) -> None:
            place.serve(80)
            require(self.outside.reaches(HOST, 8080), "the published port is not reached")

        found: list[Operation[Net]] = [
            Operation(
                name="create_network",
                before=before_create,
                run=lambda driver, memo: driver.create_network(memo[0]),
                repair=forget,
                verify=is_joined,
                undo=take_back,
            ),
            Operation(name="join", before=before_join, run=do_join, repair=keep_network, verify=is_joined, undo=take_back),
            Operation(
                name="leave",
                before=before_leave,
                run=lambda driver, memo: driver.leave(*memo),
                repair=keep_joined,
                verify=is_out,
                undo=take_back,
            ),
            Operation(
                name="delete_network",
                before=before_join,
                run=lambda driver, memo: driver.delete_network(memo[0]),
                repair=keep_network,
                verify=lambda driver, memo: None,
                undo=take_back,
            ),
        ]
        with rig.other_folders().opened() as driver:
            publishes = NetworkCapability.PUBLISH in driver.capabilities()
        if publishes:
            found.append(
                Operation(
                    name="publish",
                    before=before_publish,
                    run=lambda driver, memo: driver.publish(*memo),
                    repair=keep_joined,
                    verify=is_published,
                    undo=take_back,
                )
            )
        return found

    def verify(self, driver: Net, place: Place, joined: Joined) -> None:
        """The sandbox has what was asked for."""
        if NetworkCapability.ADDRESSES not in driver.capabilities():
            return
        name, endpoint = joined.endpoint.interface, joined.endpoint
        require(name in place.interfaces(), f"the sandbox has no interface {name}, it has {place.interfaces() or 'none'}")
        [link] = place.ip("address", "show", "dev", name)
        require("UP" in link["flags"], f"{name} is not up")
        found = {f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"] if one["family"] == "inet"}
        require(found == {str(one) for one in endpoint.addresses}, f"{name} has the addresses {found}")


def made_id(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def with_port(joined: Joined, port: int) -> Joined:
    ports = (Port(protocol="tcp", container_port=80, host_address=ip_address("0.0.0.0"), host_port=port),)
    return replace(joined, ports=ports)


def no_attachment(endpoint: Endpoint) -> Attachment:
    return Attachment(interface=endpoint.interface, mac=endpoint.mac, addresses=endpoint.addresses)
