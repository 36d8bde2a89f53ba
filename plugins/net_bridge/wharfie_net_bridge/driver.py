"""Network driver `bridge`."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from collections.abc import Iterator, Sequence
from typing import ClassVar

from wharfie.spi.driver import Context, Fault, Problem, Strings
from wharfie.spi.errors import Unavailable, WharfieError
from wharfie.spi.ipam import Address
from wharfie.spi.network import Attachment, Endpoint, Joined, Network, NetworkCapability, NetworkDriver, Port, Sandbox
from wharfie_net_bridge import nft
from wharfie_net_bridge.bridge import create_bridge, delete_bridge
from wharfie_net_bridge.conntrack import forget_translated, forget_untranslated
from wharfie_net_bridge.endpoint import attach, detach, detach_later
from wharfie_net_bridge.firewall import Firewall, clear
from wharfie_net_bridge.firewalld import TABLE, Firewalld
from wharfie_net_bridge.forwarding import Forwarding
from wharfie_net_bridge.names import owner
from wharfie_net_bridge.options import MTU, NAME, BridgeOptions, parse
from wharfie_net_bridge.rtnl import Rtnl, delete_link
from wharfie_net_bridge.ruleset import Element, Segment, port_elements
from wharfie_net_bridge.settings import BridgeSettings
from wharfie_net_bridge.watch import RulesetWatch


class BridgeDriver(NetworkDriver):
    """A Linux bridge for each network, a veth pair for each endpoint, one nftables table for the daemon."""

    name: ClassVar[str] = "bridge"
    spi: ClassVar[str] = "1.0"
    settings: ClassVar[str] = "wharfie_net_bridge.settings:BridgeSettings"

    def __init__(self, context: Context, settings: BridgeSettings) -> None:
        self._settings = settings
        self._instance = context.instance
        self._log = context.log
        self._state = context.state
        self._watch: RulesetWatch | None = None
        self._forwarding = Forwarding(context.run / "forwarding", context.log)
        self._nft: nft.Nft | None = None
        self._firewall: Firewall | None = None
        self._firewalld = Firewalld(context.log)

    def capabilities(self) -> frozenset[NetworkCapability]:
        return frozenset(
            {
                NetworkCapability.NAMESPACE,
                NetworkCapability.MULTIPLE,
                NetworkCapability.ADDRESSES,
                NetworkCapability.PUBLISH,
            }
        )

    def check(self) -> Sequence[Problem]:
        if self._settings.families and not nft.available():
            return (Problem(what=f"the library {nft.LIBRARY} is not installed", fix="apt-get install libnftables1"),)
        return ()

    def open(self) -> None:
        if self._settings.families:
            self._nft = nft.Nft()
            settings = self._settings
            self._firewall = Firewall(self._nft, self._instance, self._state, settings.families, settings.mark, self._log)
            self._watch = RulesetWatch({self._firewall.table, TABLE}, self._heal)

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
        if self._nft is not None:
            self._nft.close()

    def probe(self) -> None:
        with Rtnl() as rtnl:
            rtnl.link("lo")
        if self._nft is not None:
            self._nft.list("list tables")

    def status(self) -> Sequence[tuple[str, str]]:
        versions = " and ".join(f"IPv{version}" for version in sorted(self._settings.families))
        table = f"nftables, table inet {self._firewall.table}, {versions}" if self._firewall else "none"
        forwarding = "turned on by this daemon" if self._forwarding.ours else "left as it was"
        return (("Bridge firewall", table), ("Bridge IP forwarding", forwarding))

    def plan(self, draft: Network) -> Network:
        options = self._options(draft)
        isolated = all(
            options.gateway_mode(version) == "isolated" for version, used in ((4, draft.ipv4), (6, draft.ipv6)) if used
        )
        complete = {**draft.options, NAME: options.bridge, MTU: str(options.mtu)}
        return dataclasses.replace(
            draft,
            options=complete,
            needs_gateway=not isolated,
            host_address=options.host_binding,
            direct=frozenset(version for version in (4, 6) if options.gateway_mode(version) == "routed"),
        )

    def create_network(self, network: Network) -> None:
        options = self._options(network)
        with _named(f"network {network.name}"):
            create_bridge(network, options, self._instance)
            self._need_forwarding(network)
        if self._firewall is not None:
            try:
                self._firewall.put(network.id, self._segment(network))
            except BaseException:
                # Without its rules a network is neither apart nor closed to the outside.
                delete_bridge(network, options, self._instance)
                raise
            self._settle()

    def delete_network(self, network: Network) -> None:
        with _named(f"network {network.name}"):
            delete_bridge(network, self._options(network), self._instance)
        if self._firewall is not None:
            self._firewall.drop(network.id)
            self._settle()

    def join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Attachment:
        options = self._options(network)
        with _named(f"endpoint of container {endpoint.container.name} in network {network.name}"):
            if not _exists(options.bridge):
                self._log.warning(
                    "bridge %s of network %s was removed by somebody, making it again", options.bridge, network.name
                )
                create_bridge(network, options, self._instance)
            attachment = attach(network, options, endpoint, sandbox, self._instance)
        if self._firewall is not None:
            self._firewall.stand_beside()  # another engine may have been started since the network was made
            self._settle()
        return attachment

    def leave(self, network: Network, joined: Joined) -> None:
        if joined.ports and self._firewall is not None:
            self.unpublish(network, joined)
        with _named(f"endpoint of container {joined.endpoint.container.name} in network {network.name}"):
            if joined.sandbox is None:
                detach_later(joined.endpoint.id, self._log)
            else:
                detach(joined.endpoint.id)

    def publish(self, network: Network, joined: Joined) -> None:
        self._refuse_unserved(joined)
        if self._firewall is None:
            return
        self._firewall.publish(joined.endpoint.id, self._port_elements(network, joined))
        with self._no_obstacle(joined):
            for port, _ in _udp(joined):
                forget_untranslated(port.host_address, port.host_port)

    def unpublish(self, network: Network, joined: Joined) -> None:
        if self._firewall is None:
            return
        self._firewall.unpublish(joined.endpoint.id, self._port_elements(network, joined))
        with self._no_obstacle(joined):
            for port, target in _udp(joined):
                forget_translated(port.host_port, target, port.container_port)

    def describe(self, network: Network, joined: Joined) -> Strings:
        return dict(joined.attachment.data)

    def reconcile(self, networks: Sequence[Network], joined: Sequence[Joined]) -> Sequence[Fault]:
        faults: list[Fault] = []
        self._remove_strangers({network.id for network in networks}, {one.endpoint.id for one in joined if one.sandbox})
        segments: dict[str, Segment] = {}
        for network in networks:
            with _collected(faults, network.id):
                options = self._options(network)
                create_bridge(network, options, self._instance)
                self._need_forwarding(network)
                segments[network.id] = self._segment(network)
        alive: dict[str, Network] = {network.id: network for network in networks if network.id in segments}
        published: dict[str, list[Element]] = {}
        for one in joined:
            network_of = alive.get(one.endpoint.network_id)
            if network_of is None or one.sandbox is None:
                continue
            with _collected(faults, one.endpoint.id):
                attach(network_of, segments[network_of.id].options, one.endpoint, one.sandbox, self._instance)
                published[one.endpoint.id] = port_elements(segments[network_of.id], one)
        if self._firewall is not None:
            refused = self._firewall.replace(segments, published)
            self._settle()
            faults += [Fault(object=endpoint_id, reason=reason) for endpoint_id, reason in refused.items()]
        else:
            clear(self._instance, self._log)
        return faults

    def _heal(self) -> None:
        try:
            if self._firewall is not None:
                self._firewall.heal()
                self._settle()
        except WharfieError as error:
            self._log.error("the firewall cannot be made whole again: %s", error)

    def _settle(self) -> None:
        """Tell firewalld which bridges there are, if it is here."""
        if self._firewall is not None and TABLE in self._firewall.beside:
            self._firewalld.settle(self._firewall.bridges)

    def _options(self, network: Network) -> BridgeOptions:
        return parse(network, self._settings.mtu)

    def _port_elements(self, network: Network, joined: Joined) -> list[Element]:
        return port_elements(self._segment(network), joined)

    def _segment(self, network: Network) -> Segment:
        settings = self._settings
        return Segment.of(network, self._options(network), settings.families, direct=settings.allow_direct_routing)

    def _refuse_unserved(self, joined: Joined) -> None:
        """Without a firewall ports are the core's proxy's alone. Errors: Unavailable (it does not serve one of them)."""
        for port in joined.ports:
            version = port.host_address.version
            if version not in self._settings.families and not port.relayed and port.host_port:
                key = "iptables" if version == 4 else "ip6tables"
                raise Unavailable(
                    f'port {port.host_port} cannot be published: "{key}" is false and no userland proxy serves it; make'
                    f' "{key}" or "userland-proxy" true'
                )

    @contextlib.contextmanager
    def _no_obstacle(self, joined: Joined) -> Iterator[None]:
        """Flows that cannot be forgotten end by themselves when they pause; the port is what it should be."""
        try:
            yield
        except OSError as error:
            self._log.warning("cannot forget UDP flows of container %s: %s", joined.endpoint.container.name, error)

    def _need_forwarding(self, network: Network) -> None:
        if network.internal or not self._settings.ip_forward:
            return
        for version, used in ((4, network.ipv4), (6, network.ipv6)):
            if used:
                self._forwarding.need(version)
        if self._firewall is not None:
            self._firewall.drop_strangers = self._forwarding.ours and not self._settings.ip_forward_no_drop

    def _remove_strangers(self, networks: set[str], endpoints: set[str]) -> None:
        """Interfaces that carry this daemon's alias and that nobody wants."""
        prefix = owner(self._instance)
        with Rtnl() as rtnl:
            for link in rtnl.links():
                if link.alias.startswith(prefix):
                    network_id, _, endpoint_id = link.alias.removeprefix(prefix).partition(":")
                    if network_id not in networks or (endpoint_id and endpoint_id not in endpoints):
                        self._log.info("removing interface %s of a network or container that is gone", link.name)
                        rtnl.run(delete_link(link.name))


@contextlib.contextmanager
def _named(subject: str) -> Iterator[None]:
    """An OSError of the kernel becomes an error that says for what."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{subject}: the kernel refused: {error.strerror or error}") from error


@contextlib.contextmanager
def _collected(faults: list[Fault], subject: str) -> Iterator[None]:
    try:
        yield
    except (WharfieError, OSError) as error:
        faults.append(Fault(object=subject, reason=str(error)))


def _exists(interface: str) -> bool:
    try:
        socket.if_nametoindex(interface)
    except OSError:
        return False
    return True


def _udp(joined: Joined) -> Iterator[tuple[Port, Address]]:
    """The UDP ports of an endpoint, with the endpoint's address."""
    targets: dict[int, Address] = {address.version: address.ip for address in joined.endpoint.addresses}
    for port in joined.ports:
        if port.protocol == "udp" and port.host_port and port.host_address.version in targets:
            yield port, targets[port.host_address.version]
