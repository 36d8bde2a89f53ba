"""The rules of network drivers. A room is a host with the interface `kit0` (192.0.2.1/24) and a neighbour at 192.0.2.2;
sandboxes are network namespaces. The kit looks with the command `ip`."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, ClassVar

from wharfie.kit import leaks
from wharfie.kit.contract import Contract
from wharfie.kit.crash import Operation
from wharfie.kit.place import Place, ip
from wharfie.kit.rig import Rig
from wharfie.kit.rules import DOCKER, Group, refused, require, rule, succeeds
from wharfie.spi.driver import ContainerFacts, Strings
from wharfie.spi.errors import InvalidArgument, NotFound, WharfieError
from wharfie.spi.network import Attachment, Endpoint, Joined, Network, NetworkCapability, NetworkDriver, Pool, Port, Sandbox

HOST, NEIGHBOUR = "192.0.2.1", "192.0.2.2"
Net = NetworkDriver


class NetworkContract(Contract[NetworkDriver]):
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
            id=_id("network", number),
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
            id=_id("endpoint", network.id, number),
            network_id=network.id,
            container=ContainerFacts(id=_id("container", number), name=name, hostname=name),
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
            self._look(driver, place, joined)
            driver.describe(network, joined)
            if NetworkCapability.PUBLISH in abilities:
                published = _published(joined, 8000 + number)
                driver.publish(network, published)
                driver.unpublish(network, published)

    def shared(self, rig: Rig[Net], driver: Net) -> Callable[[], None]:
        self._place = Place()
        self._network = self.network(driver, 1)

        def finish() -> None:
            joined = self.join(driver, self._network, self._place)
            self._look(driver, self._place, joined)
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
            return network, Joined(endpoint=endpoint, sandbox=None, attachment=_nothing(endpoint))

        def before_join(driver: Net) -> tuple[Network, Joined]:
            network, joined = before_create(driver)
            driver.create_network(network)
            return network, replace(joined, sandbox=Sandbox(id=joined.endpoint.container.id, path=place.path))

        def before_leave(driver: Net) -> tuple[Network, Joined]:
            network = self.network(driver, 1)
            return network, self.join(driver, network, place)

        def before_publish(driver: Net) -> tuple[Network, Joined]:
            network, joined = before_leave(driver)
            return network, _published(joined, 8080)

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
                self._look(driver, place, memo[1])

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

    def _look(self, driver: Net, place: Place, joined: Joined) -> None:
        """The sandbox has what was asked for."""
        if NetworkCapability.ADDRESSES not in driver.capabilities():
            return
        name, endpoint = joined.endpoint.interface, joined.endpoint
        require(name in place.interfaces(), f"the sandbox has no interface {name}, it has {place.interfaces() or 'none'}")
        [link] = place.ip("address", "show", "dev", name)
        require("UP" in link["flags"], f"{name} is not up")
        found = {f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"] if one["family"] == "inet"}
        require(found == {str(one) for one in endpoint.addresses}, f"{name} has the addresses {found}")

    @rule("plan keeps what the core has chosen: id, name, pools and the options that were given.", methods="plan")
    def test_net_01(self, rig: Rig[Net], driver: Net) -> None:
        draft = self.draft(driver, 1)
        network = driver.plan(draft)
        for field in ("id", "name", "pools", "internal", "default", "labels"):
            require(
                getattr(network, field) == getattr(draft, field), f"plan changed {field} to {getattr(network, field)!r}"
            )
        for option, value in draft.options.items():
            require(network.options.get(option) == value, f"plan changed the option {option}")

    @rule("plan touches nothing, and knows no other network.", methods="plan")
    def test_net_02(self, rig: Rig[Net], driver: Net) -> None:
        before = leaks.kernel(rig.state, rig.run)
        for _ in range(2):
            driver.plan(self.draft(driver, 1))
        require(not (new := leaks.more(before, leaks.kernel(rig.state, rig.run))), f"after plan {new}")

    @rule("plan refuses a bad option as InvalidArgument naming it.", methods="plan", needs="bad_option", source=DOCKER)
    def test_net_03(self, rig: Rig[Net], driver: Net) -> None:
        draft = self.draft(driver, 1)
        [option] = self.bad_option
        with refused(InvalidArgument, "plan with a bad option", naming=option):
            driver.plan(replace(draft, options={**draft.options, **self.bad_option}))

    @rule("A planned network is complete: planned again it is the same.", group=Group.REPETITION, methods="plan")
    def test_net_04(self, rig: Rig[Net], driver: Net) -> None:
        network = driver.plan(self.draft(driver, 1))
        require(driver.plan(network) == network, "plan of a planned network changes it")

    @rule("create_network may be repeated.", group=Group.REPETITION, methods="create_network delete_network")
    def test_net_05(self, rig: Rig[Net], driver: Net) -> None:
        network = self.network(driver, 1)
        before = leaks.kernel()
        for _ in range(10):
            with succeeds("create_network, repeated"):
                driver.create_network(network)
        require(not (new := leaks.more(before, leaks.kernel())), f"after create_network again {new}")
        driver.delete_network(network)

    @rule("delete_network succeeds when the network is not there.", group=Group.REPETITION, methods="delete_network")
    def test_net_06(self, rig: Rig[Net], driver: Net) -> None:
        network = self.network(driver, 1)
        for _ in range(10):
            with succeeds("delete_network, repeated"):
                driver.delete_network(network)
        with succeeds("delete_network of a network that never was"):
            driver.delete_network(self.planned(driver, 2))

    @rule(
        "join gives the sandbox an interface of the name, the address and the state that were asked for.",
        methods="join",
        capability="addresses",
    )
    def test_net_07(self, rig: Rig[Net], driver: Net) -> None:
        with self.joined(driver) as (_, joined, place):
            self._look(driver, place, joined)

    @rule(
        "What join returns is what is there: interface, addresses, hardware address.",
        methods="join",
        capability="addresses",
    )
    def test_net_08(self, rig: Rig[Net], driver: Net) -> None:
        with self.joined(driver) as (_, joined, place):
            told = joined.attachment
            require(told.interface == joined.endpoint.interface, f"the attachment names the interface {told.interface!r}")
            require(told.addresses == joined.endpoint.addresses, f"the attachment has the addresses {told.addresses}")
            [link] = place.ip("link", "show", "dev", joined.endpoint.interface)
            require(
                told.mac == link.get("address", ""),
                f"the attachment has the MAC {told.mac}, the interface {link.get('address')}",
            )

    @rule(
        "The default route goes by the attachment's gateway, if the endpoint carries it.",
        methods="join",
        capability="addresses",
    )
    def test_net_09(self, rig: Rig[Net], driver: Net) -> None:
        with self.joined(driver) as (_, joined, place):
            gateway = str(joined.attachment.gateway4) if joined.attachment.gateway4 else ""
            wanted = [gateway] if gateway else []
            require(place.default_routes() == wanted, f"default routes go by {place.default_routes()}, not by {wanted}")

    @rule("An endpoint that does not carry the default route has none.", methods="join", capability="addresses")
    def test_net_10(self, rig: Rig[Net], driver: Net) -> None:
        place, network = Place(), self.network(driver, 1)
        self.join(driver, network, place, route=False)
        require(not place.default_routes(), f"a default route was made that nobody asked for: {place.default_routes()}")

    @rule(
        "join of a joined endpoint with other default-route flags changes the routes.",
        group=Group.REPETITION,
        methods="join",
        capability="addresses",
    )
    def test_net_11(self, rig: Rig[Net], driver: Net) -> None:
        place, network = Place(), self.network(driver, 1)
        for route in (True, False, True):
            joined = self.join(driver, network, place, route=route)
            wanted = 1 if route and joined.attachment.gateway4 else 0
            require(
                len(place.default_routes()) == wanted,
                f"with default_route4={route} the routes are {place.default_routes()}",
            )
            self._look(driver, place, joined)

    @rule("join may be repeated, and returns the same.", group=Group.REPETITION, methods="join")
    def test_net_12(self, rig: Rig[Net], driver: Net) -> None:
        with self.joined(driver) as (network, joined, place):
            before = leaks.kernel()
            for _ in range(3):
                with succeeds("join, repeated"):
                    again = self.join(driver, network, place)
                require(again.attachment == joined.attachment, f"join again returned {again.attachment}")
            require(not (new := leaks.more(before, leaks.kernel())), f"after join again {new}")

    @rule("join to a sandbox that is gone is NotFound, and leaves nothing.", methods="join", capability="namespace")
    def test_net_13(self, rig: Rig[Net], driver: Net) -> None:
        network, place = self.network(driver, 1), Place()
        place.close()
        before = leaks.kernel()
        with refused(NotFound, "join to a sandbox that is gone"):
            self.join(driver, network, place)
        require(not (new := leaks.more(before, leaks.kernel())), f"after the refused join {new}")

    @rule("A join that fails leaves nothing, in the sandbox and outside.", methods="join", capability="addresses")
    def test_net_14(self, rig: Rig[Net], driver: Net) -> None:
        network, place = self.network(driver, 1), Place()
        place.ip("link", "add", "eth0", "type", "bridge")
        before = leaks.kernel()
        with refused(WharfieError, "join with an interface whose name is taken"):
            self.join(driver, network, place)
        require(place.interfaces() == {"eth0"}, f"after the refused join the sandbox has {place.interfaces()}")
        [link] = place.ip("-details", "link", "show", "dev", "eth0")
        require(link.get("linkinfo", {}).get("info_kind") == "bridge", "the foreign interface was replaced")
        require(not (new := leaks.more(before, leaks.kernel())), f"after the refused join {new}")

    @rule("leave takes the interface out of the sandbox.", methods="leave", capability="addresses")
    def test_net_15(self, rig: Rig[Net], driver: Net) -> None:
        place, network = Place(), self.network(driver, 1)
        before = leaks.kernel()
        driver.leave(network, self.join(driver, network, place))
        require(not place.interfaces(), f"after leave the sandbox has {place.interfaces()}")
        require(not (new := leaks.more(before, leaks.kernel())), f"after leave {new}")

    @rule(
        "leave succeeds when the endpoint is out, and when its sandbox is gone or None.",
        group=Group.REPETITION,
        methods="leave",
    )
    def test_net_16(self, rig: Rig[Net], driver: Net) -> None:
        place, network = Place(), self.network(driver, 1)
        joined = self.join(driver, network, place)
        for _ in range(3):
            with succeeds("leave, repeated"):
                driver.leave(network, joined)
        joined = self.join(driver, network, place)
        place.close()
        for gone in (joined, replace(joined, sandbox=None)):
            with succeeds("leave without a sandbox"):
                driver.leave(network, gone)

    @rule("Endpoints of one network reach each other.", methods="create_network join", capability="addresses")
    def test_net_17(self, rig: Rig[Net], driver: Net) -> None:
        network, places = self.network(driver, 1), [Place(), Place()]
        for number, place in enumerate(places):
            self.join(driver, network, place, number)
        places[0].serve(7000)
        address = str(self.endpoint(network, 0).addresses[0].ip)
        require(places[1].reaches(address, 7000), f"{address} is not reached by another endpoint of its network")

    @rule("One sandbox may be in several networks.", group=Group.ORDER, methods="join leave", capability="multiple")
    def test_net_18(self, rig: Rig[Net], driver: Net) -> None:
        place = Place()
        networks = [self.network(driver, number) for number in (1, 2)]
        both = [
            self.join(driver, network, place, interface=f"eth{index}", route=index == 0)
            for index, network in enumerate(networks)
        ]
        for joined in both:
            self._look(driver, place, joined)
        driver.leave(networks[0], both[0])
        self._look(driver, place, both[1])

    @rule(
        "A published port of the container is reached from outside, at the host's address and port.",
        methods="publish",
        capability="publish",
    )
    def test_net_19(self, rig: Rig[Net], driver: Net) -> None:
        with self._publishing(driver) as (_, published):
            require(
                self.outside.reaches(HOST, 8080), f"{HOST}:8080, published for the container's port 80, does not answer"
            )
            require(published.ports, "nothing was published")

    @rule("publish may be repeated.", group=Group.REPETITION, methods="publish", capability="publish")
    def test_net_20(self, rig: Rig[Net], driver: Net) -> None:
        with self._publishing(driver) as (network, published):
            before = leaks.kernel()
            for _ in range(3):
                with succeeds("publish, repeated"):
                    driver.publish(network, published)
            require(not (new := leaks.more(before, leaks.kernel())), f"after publish again {new}")

    @rule("After unpublish the port is not reached.", methods="unpublish", capability="publish")
    def test_net_21(self, rig: Rig[Net], driver: Net) -> None:
        with self._publishing(driver) as (network, published):
            driver.unpublish(network, published)
            require(not self.outside.reaches(HOST, 8080), f"{HOST}:8080 answers after unpublish")

    @rule(
        "unpublish succeeds when nothing is published.", group=Group.REPETITION, methods="unpublish", capability="publish"
    )
    def test_net_22(self, rig: Rig[Net], driver: Net) -> None:
        with self.joined(driver) as (network, joined, _):
            for _ in range(3):
                with succeeds("unpublish of what is not published"):
                    driver.unpublish(network, _published(joined, 8080))

    @rule("reconcile removes what is the driver's own and not wanted.", methods="reconcile")
    def test_net_23(self, rig: Rig[Net], driver: Net) -> None:
        place = Place()
        driver.reconcile([], [])
        before = leaks.kernel()
        self.join(driver, self.network(driver, 1), place)
        driver.close()
        with rig.opened() as second:
            with succeeds("reconcile with nothing wanted"):
                second.reconcile([], [])
            require(not (new := leaks.more(before, leaks.kernel())), f"after reconcile with nothing wanted {new}")

    @rule("reconcile leaves the operator's interfaces and firewall alone.", methods="reconcile")
    def test_net_24(self, rig: Rig[Net], driver: Net) -> None:
        foreign = "table inet operators { chain guard { counter drop ; } ; }"
        subprocess.run(["nft", foreign], check=True)
        ip("link", "add", "br-operator", "type", "bridge")
        network = self.network(driver, 1)
        driver.reconcile([network], [])
        driver.reconcile([], [])
        listed = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout
        require("inet operators" in listed, "reconcile removed a foreign table of the firewall")
        names = {link["ifname"] for link in ip("link", "show")}
        require({"br-operator", "kit0"} <= names, f"reconcile removed foreign interfaces; there are {sorted(names)}")

    @rule("reconcile leaves what is wanted as it is, and may be repeated.", group=Group.REPETITION, methods="reconcile")
    def test_net_25(self, rig: Rig[Net], driver: Net) -> None:
        with self.joined(driver) as (network, joined, place):
            before = leaks.kernel()
            with rig.opened() as second:
                for _ in range(3):
                    faults = second.reconcile([network], [joined])
                    require(not faults, f"reconcile finds faults in what is well: {list(faults)}")
                self._look(second, place, joined)
            require(not (new := leaks.more(before, leaks.kernel())), f"after reconcile {new}")

    @rule(
        "reconcile makes what is gone again, as after a reboot or a flushed firewall.",
        group=Group.ORDER,
        methods="reconcile",
    )
    def test_net_26(self, rig: Rig[Net], driver: Net) -> None:
        before = {link["ifname"] for link in ip("link", "show")}
        place, network = Place(), self.network(driver, 1)
        joined = self.join(driver, network, place)
        for link in {link["ifname"] for link in ip("link", "show")} - before:
            subprocess.run(["ip", "link", "delete", link], check=False, capture_output=True)
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        faults = driver.reconcile([network], [joined])
        require(not faults, f"reconcile finds faults: {list(faults)}")
        self._look(driver, place, joined)
        with succeeds("join after reconcile made the network again"):
            self._look(driver, place := Place(), self.join(driver, network, place, 2))

    @rule("reconcile does not fail for one endpoint whose sandbox is gone, and serves the others.", methods="reconcile")
    def test_net_27(self, rig: Rig[Net], driver: Net) -> None:
        network, places = self.network(driver, 1), [Place(), Place()]
        both = [self.join(driver, network, place, number) for number, place in enumerate(places)]
        places[0].close()
        with succeeds("reconcile with an endpoint whose sandbox is gone"):
            faults = driver.reconcile([network], both)
        require({fault.object for fault in faults} <= {both[0].endpoint.id}, f"reconcile reports {list(faults)}")
        self._look(driver, places[1], both[1])

    @rule("describe gives texts, for a joined endpoint and for one without a sandbox.", methods="describe")
    def test_net_28(self, rig: Rig[Net], driver: Net) -> None:
        with self.joined(driver) as (network, joined, _):
            for one in (joined, replace(joined, sandbox=None)):
                for key, value in driver.describe(network, one).items():
                    require(isinstance(key, str) and isinstance(value, str), f"describe has {key!r}: {value!r}")

    @rule("A port that the core's proxy serves too is published like any other.", methods="publish", capability="publish")
    def test_net_29(self, rig: Rig[Net], driver: Net) -> None:
        with self.joined(driver) as (network, joined, place):
            place.serve(80)
            published = _published(joined, 8080)
            relayed = replace(published, ports=tuple(replace(port, relayed=True) for port in published.ports))
            with succeeds("publish of a port that is relayed"):
                driver.publish(network, relayed)
            require(self.outside.reaches(HOST, 8080), f"{HOST}:8080, which the core relays too, does not answer")
            driver.unpublish(network, relayed)

    @contextmanager
    def _publishing(self, driver: Net) -> Iterator[tuple[Network, Joined]]:
        with self.joined(driver) as (network, joined, place):
            place.serve(80)
            published = _published(joined, 8080)
            driver.publish(network, published)
            yield network, published
            driver.unpublish(network, published)


def _id(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _published(joined: Joined, port: int) -> Joined:
    ports = (Port(protocol="tcp", container_port=80, host_address=ip_address("0.0.0.0"), host_port=port),)
    return replace(joined, ports=ports)


def _nothing(endpoint: Endpoint) -> Attachment:
    return Attachment(interface=endpoint.interface, mac=endpoint.mac, addresses=endpoint.addresses)
