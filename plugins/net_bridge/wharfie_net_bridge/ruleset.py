"""The text of this daemon's nftables table: what passes, what is translated, what is dropped.

All rules are constant; networks and ports are elements of sets and maps that the rules look into. So a port costs one
element whatever else is there, a lookup takes the same time with one port and with a thousand, and the whole table is one
transaction that replaces itself.

A packet meets the chains in this order

    guard        what comes from outside for 127.0.0.0/8 is dropped: route_localnet opens that door on our bridges
    prerouting   addressed to one of the host's own addresses: translated if the port is published
    output       the same for packets that the host itself sends
    forward      neighbours pass; replies pass; containers go out; from outside only translated ports come in; networks do
                 not see each other; internal networks see nobody
    postrouting  what leaves a network gets the host's address; neighbours who call each other by the host's port too, since
                 the answer would otherwise not come back through the host; and so does what the host calls by 127.0.0.1

`operator` is the operator's chain: we make it, jump there before anything else in `forward`, and never touch its content.
Elsewhere the verdict "accept" is only for this table; a table that drops goes on dropping (see `beside`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from wharfie.spi.ipam import Subnet
from wharfie.spi.network import Joined, Network
from wharfie_net_bridge.operator import CHAIN
from wharfie_net_bridge.options import BridgeOptions


@dataclass(frozen=True, slots=True)
class Element:
    """An entry of a set (`value` is empty) or of a map."""

    set: str
    key: str
    value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A network, as far as the firewall looks at it."""

    subnets: tuple[Subnet, ...]
    internal: bool
    options: BridgeOptions
    families: frozenset[int]  # versions of IP that there are rules for
    direct: bool  # published ports are reached by the containers' own addresses too

    @classmethod
    def of(cls, network: Network, options: BridgeOptions, families: frozenset[int], *, direct: bool) -> Segment:
        subnets = tuple(pool.subnet for pool in network.pools if pool.subnet.version in families)
        return cls(subnets=subnets, internal=network.internal, options=options, families=families, direct=direct)

    def elements(self) -> Iterable[Element]:
        """What the network adds to the table's sets."""
        options, bridge = self.options, f'"{self.options.bridge}"'
        yield Element("bridges", bridge)
        if options.icc:
            yield Element("neighbours", f"{bridge} . {bridge}")
        if self.internal:
            yield Element("internal", bridge)
        for subnet in self.subnets:
            version = subnet.version
            yield Element(f"subnets{version}", f"{subnet} . {bridge}")
            if self.internal or options.gateway_mode(version) in ("routed", "isolated"):
                continue
            if options.gateway_mode(version) == "nat-unprotected":
                yield Element("unprotected", f"ipv{version} . {bridge}")
            if options.masquerade and version == 4 and options.host_ipv4:
                yield Element("sources4", str(subnet), str(options.host_ipv4))
            elif options.masquerade:
                yield Element(f"masquerade{version}", str(subnet))


def port_elements(segment: Segment, joined: Joined) -> list[Element]:
    """What publishing the ports of an endpoint adds to the table's maps.

    A port on a host address of a family that the endpoint has no address of is left out, and so is every port of an
    internal network, as Docker does.
    """
    if segment.internal:
        return []
    targets = {address.version: address.ip for address in joined.endpoint.addresses}
    elements: list[Element] = []
    for port in joined.ports:
        version = port.host_address.version
        target = targets.get(version)
        if target is None or version not in segment.families:
            continue
        inside = f"{target} . {port.protocol} . {port.container_port}"
        if segment.options.gateway_mode(version) == "routed":
            elements.append(Element(f"routed{version}", inside))
            continue
        if segment.direct and not port.host_address.is_loopback:
            elements.append(Element(f"routed{version}", inside))
        translated = f"{target} . {port.container_port}"
        outside = f"{port.protocol} . {port.host_port}"
        if port.host_address.is_unspecified:
            elements.append(Element(f"ports{version}", outside, translated))
        else:
            elements.append(Element(f"bound{version}", f"{port.host_address} . {outside}", translated))
        elements += [Element(f"trusted{version}", f'"{name}" . {inside}') for name in segment.options.trusted]
    return list(dict.fromkeys(elements))


_SETS = {
    "bridges": "type ifname",
    "internal": "type ifname",
    "neighbours": "type ifname . ifname",
    "unprotected": "type nf_proto . ifname",
}
_SETS_BY_FAMILY = {
    "subnets": "type {addr} . ifname; flags interval",
    "masquerade": "type {addr}; flags interval",
    "routed": "type {addr} . inet_proto . inet_service",
    "trusted": "type ifname . {addr} . inet_proto . inet_service",
}
_MAPS = {"sources4": "type ipv4_addr : ipv4_addr; flags interval"}
_MAPS_BY_FAMILY = {
    "ports": "type inet_proto . inet_service : {addr} . inet_service",
    "bound": "type {addr} . inet_proto . inet_service : {addr} . inet_service",
}
_FAMILIES = ((4, "ip", "ipv4_addr"), (6, "ip6", "ipv6_addr"))

_BASE_CHAINS = {
    "guard": "type filter hook prerouting priority raw; policy accept;",
    "prerouting": "type nat hook prerouting priority dstnat; policy accept;",
    "output": "type nat hook output priority -100; policy accept;",
    "forward": "type filter hook forward priority filter; policy accept;",
    "postrouting": "type nat hook postrouting priority srcnat; policy accept;",
}
_CHAINS = {
    "guard": ['iifname != "lo" ip daddr 127.0.0.0/8 drop'],
    "prerouting": ["fib daddr type local jump published"],
    # A packet cannot leave with the source ::1: such calls are the proxy's.
    "output": ["ip6 daddr ::1 return", "fib daddr type local jump published"],
    "published": [
        "meta nfproto ipv4 dnat ip to ip daddr . meta l4proto . th dport map @bound4",
        "meta nfproto ipv4 dnat ip to meta l4proto . th dport map @ports4",
        "meta nfproto ipv6 dnat ip6 to ip6 daddr . meta l4proto . th dport map @bound6",
        "meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @ports6",
    ],
    "forward": [
        "iifname != @bridges oifname != @bridges goto strangers",
        f"jump {CHAIN}",
        "ct state related accept",
        # Replies only. Who calls is judged at each packet: a flow that began while the table was flushed must not go on.
        "ct state established ct direction reply accept",
        "iifname . oifname @neighbours accept",
        "iifname @internal drop",
        "oifname @internal drop",
        "oifname @bridges goto incoming",
    ],
    "incoming": [
        "ct status dnat accept",
        "meta nfproto . oifname @unprotected accept",
        *(f"{ip} daddr . meta l4proto . th dport @routed{n} accept" for n, ip, _ in _FAMILIES),
        *(f"iifname . {ip} daddr . meta l4proto . th dport @trusted{n} accept" for n, ip, _ in _FAMILIES),
        "drop",
    ],
    "postrouting": [
        "ct status dnat ip saddr 127.0.0.0/8 oifname @bridges masquerade",
        *(f"ct status dnat {ip} saddr . oifname @subnets{n} masquerade" for n, ip, _ in _FAMILIES),
        *(f"{ip} saddr . oifname @subnets{n} accept" for n, ip, _ in _FAMILIES),
        "snat ip to ip saddr map @sources4",
        *(f"{ip} saddr @masquerade{n} masquerade" for n, ip, _ in _FAMILIES),
    ],
}
# The host is a router only because we made it one: what is nobody's bridge is not ours to carry.
_STRANGERS_DROPPED = ['meta iifkind "bridge" return', 'meta oifkind "bridge" return', "drop"]


def chains(families: frozenset[int], *, drop_strangers: bool, mark: tuple[int, int] | None) -> dict[str, list[str]]:
    """All chains but the operator's, with their rules. What is of none of `families` passes, and what carries `mark`, a
    value and a mask, comes in from outside."""
    passing = [f"meta nfproto ipv{version} accept" for version in sorted({4, 6} - families)]
    found = {name: (passing if name in ("guard", "forward") else []) + rules for name, rules in _CHAINS.items()}
    if mark is not None:
        found["incoming"] = [f"meta mark & {mark[1]:#x} == {mark[0]:#x} accept", *found["incoming"]]
    return {**found, "strangers": _STRANGERS_DROPPED if drop_strangers else []}


def render(table: str, elements: Iterable[Element], chains: Mapping[str, Sequence[str]]) -> str:
    """The transaction that makes the table from whatever is there: nothing, an older state, a half-flushed one.

    Who changes the type of a set or map in a later version must give it a new name: the kernel keeps the old type.
    """
    sets = dict(_SETS)
    maps = dict(_MAPS)
    for number, _, address in _FAMILIES:
        sets |= {f"{name}{number}": text.format(addr=address) for name, text in _SETS_BY_FAMILY.items()}
        maps |= {f"{name}{number}": text.format(addr=address) for name, text in _MAPS_BY_FAMILY.items()}
    lines = [f"table inet {table} {{"]
    lines += [f"set {name} {{ {text}; }}" for name, text in sets.items()]
    lines += [f"map {name} {{ {text}; }}" for name, text in maps.items()]
    lines += [f"chain {name} {{ {_BASE_CHAINS.get(name, '')} }}" for name in (CHAIN, *chains)]
    lines += ["}"]
    lines += [f"flush chain inet {table} {name}" for name in chains]
    lines += [f"flush set inet {table} {name}" for name in sets]
    lines += [f"flush map inet {table} {name}" for name in maps]
    for name, rules in chains.items():
        lines += [f"add rule inet {table} {name} {rule}" for rule in rules]
    lines += change("add", table, elements)
    return "\n".join(lines)


def change(verb: str, table: str, elements: Iterable[Element]) -> list[str]:
    """Commands that add or delete elements, one for each set."""
    entries: dict[str, list[str]] = defaultdict(list)
    for element in elements:
        entries[element.set].append(f"{element.key} : {element.value}" if element.value and verb == "add" else element.key)
    return [f"{verb} element inet {table} {name} {{ {', '.join(keys)} }}" for name, keys in entries.items()]
