"""Endpoints that join sandboxes, and leave them."""

from __future__ import annotations

from dataclasses import replace

from wharfie.kit import leaks
from wharfie.kit.network.world import Net, NetworkWorld
from wharfie.kit.place import Place
from wharfie.kit.rig import Rig
from wharfie.kit.rules import Group, refused, require, rule, succeeds
from wharfie.spi.errors import NotFound, WharfieError


class SandboxRules(NetworkWorld):
    """Endpoints that join sandboxes, and leave them."""

    @rule(
        "join gives the sandbox an interface of the name, the address and the state that were asked for.",
        methods="join",
        capability="addresses",
    )
    def test_net_07(self, rig: Rig[Net], driver: Net) -> None:
        with self.joined(driver) as (_, joined, place):
            self.verify(driver, place, joined)

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
            self.verify(driver, place, joined)

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
            self.verify(driver, place, joined)
        driver.leave(networks[0], both[0])
        self.verify(driver, place, both[1])
