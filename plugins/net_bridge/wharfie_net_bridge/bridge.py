"""A network's kernel object: the bridge."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_interface

from wharfie.spi.errors import Conflict, Forbidden
from wharfie.spi.ipam import Interface
from wharfie.spi.network import Network
from wharfie_net_bridge import sysctl
from wharfie_net_bridge.names import bridge_mac, network_alias
from wharfie_net_bridge.options import NAME, BridgeOptions
from wharfie_net_bridge.rtnl import Link, Rtnl, add_address, delete_link, link_message, new_link, set_link


def create_bridge(network: Network, options: BridgeOptions, instance: str) -> None:
    """Make the network's bridge, or bring one that is there to what the network says. May be repeated.

    A bridge that the operator made and named in the options is used as it is: it only gets the gateway's address, where it
    lacks it, and is never removed. Errors: Conflict, Forbidden, OSError.
    """
    alias = network_alias(instance, network.id)
    with Rtnl() as rtnl:
        link = rtnl.link(options.bridge)
        if link is not None:
            _refuse_foreign(link, alias)
        if link is None or link.alias != alias:
            _refuse_overlap(rtnl, network, link)
        made = link is None
        if made:
            attributes = [
                ("IFLA_ADDRESS", bridge_mac(network.id)),
                ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge")]}),
            ]
            rtnl.run(
                new_link(link_message(name=options.bridge, attributes=attributes)),
                set_link(link_message(name=options.bridge, attributes=[("IFLA_IFALIAS", alias)])),
            )
        try:
            _configure(rtnl, network, options, own=made or (link is not None and link.alias == alias))
        except BaseException:
            if made:
                rtnl.run(delete_link(options.bridge))
            raise


def delete_bridge(network: Network, options: BridgeOptions, instance: str) -> None:
    """Remove the bridge that `create_bridge` made; a bridge of the operator stays. Errors: OSError."""
    with Rtnl() as rtnl:
        link = rtnl.link(options.bridge)
        if link is not None and link.alias == network_alias(instance, network.id):
            rtnl.run(delete_link(options.bridge))


def _refuse_foreign(link: Link, alias: str) -> None:
    if link.kind != "bridge":
        raise Conflict(f'{NAME}: interface "{link.name}" exists and is no bridge; choose another name or remove it')
    if link.alias != alias and link.alias.startswith("wharfie:"):
        raise Conflict(f'{NAME}: bridge "{link.name}" belongs to another network ({link.alias}); choose another name')


def _refuse_overlap(rtnl: Rtnl, network: Network, own: Link | None) -> None:
    """A subnet in which another interface of the host has its address would be cut off from there; and of two bridges
    with overlapping subnets one would get the other's packets."""
    for address in rtnl.addresses():
        if own is not None and address.link == own.index:
            continue
        for pool in network.pools:
            if not address.overlaps(pool.subnet):
                continue
            used = address.interface
            name = _name(address.link)
            link = rtnl.link(name)
            if used.ip in pool.subnet or (link is not None and link.kind == "bridge"):
                raise Forbidden(
                    f"subnet {pool.subnet} of network {network.name} is in use on this host: interface"
                    f" {name} has the address {used}; choose another subnet"
                )


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:  # it has gone meanwhile
        return f"number {index}"


def _configure(rtnl: Rtnl, network: Network, options: BridgeOptions, *, own: bool) -> None:
    name = options.bridge
    index = _index(rtnl, name)
    if own or network.ipv6:
        sysctl.write("0" if network.ipv6 else "1", "ipv6", "conf", name, "disable_ipv6")
    if own:
        # A container must not be able to give the host a route.
        sysctl.write("0", "ipv6", "conf", name, "accept_ra")
    # What the host sends to 127.0.0.1 at a published port leaves by this bridge. The table's chain `guard` closes the
    # way in that this opens.
    sysctl.write("1", "ipv4", "conf", name, "route_localnet")
    mtu = [("IFLA_MTU", options.mtu)] if own else []
    rtnl.run(
        *(add_address(index, address) for address in _addresses(network, options)),
        set_link(link_message(index=index, up=True, attributes=mtu)),
    )


def _index(rtnl: Rtnl, name: str) -> int:
    link = rtnl.link(name)
    if link is None:
        raise Conflict(f'bridge "{name}" vanished while its network was being made; somebody else removed it')
    return link.index


def _addresses(network: Network, options: BridgeOptions) -> Iterator[Interface]:
    """The gateway addresses that the bridge itself has."""
    for pool in network.pools:
        version = pool.subnet.version
        if pool.gateway is None or options.gateway_mode(version) == "isolated" or (version == 4 and options.inhibit_ipv4):
            continue
        yield ip_interface((pool.gateway, pool.subnet.prefixlen))
