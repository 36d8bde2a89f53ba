"""An endpoint's kernel object: a veth pair, one end a port of the bridge, the other in the sandbox."""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
from functools import partial

from wharfie.shim.netns import within
from wharfie.spi.errors import Conflict, NotFound
from wharfie.spi.ipam import Address
from wharfie.spi.network import Attachment, Endpoint, Network, Pool, Sandbox
from wharfie_net_bridge import sysctl
from wharfie_net_bridge.names import endpoint_alias, endpoint_mac, host_veth
from wharfie_net_bridge.options import BridgeOptions
from wharfie_net_bridge.rtnl import (
    Request,
    Rtnl,
    add_address,
    default_route,
    delete_link,
    link_message,
    new_link,
    no_default_route,
    set_link,
    set_port,
)

CONTAINER_GATEWAY = {4: "DefaultGatewayIPv4", 6: "DefaultGatewayIPv6"}
"""Names of auxiliary addresses by which Docker lets another router than the bridge be the containers' gateway."""

# No address of the host's own on its end of the pair: IN6_ADDR_GEN_MODE_NONE.
_NO_LINK_LOCAL = ("IFLA_AF_SPEC", {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", 1)]})]})


def attach(network: Network, options: BridgeOptions, endpoint: Endpoint, sandbox: Sandbox, instance: str) -> Attachment:
    """Make the pair, or bring the one that is there to what the endpoint says. A failure leaves nothing.

    Errors: NotFound (the sandbox is gone), Conflict (its interface's name is taken), OSError.
    """
    gateways = {version: _gateway(network, options, endpoint, version) for version in (4, 6)}
    attachment = Attachment(
        interface=endpoint.interface,
        mac=endpoint.mac or endpoint_mac(endpoint.addresses),
        addresses=endpoint.addresses,
        gateway4=gateways[4],
        gateway6=gateways[6],
        data={"bridge": options.bridge, "host-interface": host_veth(endpoint.id)},
    )
    try:
        fresh = _make(network, options, endpoint, attachment.mac, sandbox, instance)
        try:
            within(sandbox.path, partial(_configure, endpoint, attachment, fresh=fresh))
        except BaseException:
            if fresh:
                detach(endpoint.id)
            raise
    except (FileNotFoundError, ProcessLookupError) as error:
        raise NotFound(
            f"network namespace {sandbox.path} of container {endpoint.container.name} is gone: its process has ended"
        ) from error
    return attachment


def detach(endpoint_id: str) -> None:
    """Remove the pair; there may be none. Takes 16 ms when there is. Errors: OSError."""
    with Rtnl() as rtnl:
        rtnl.run(delete_link(host_veth(endpoint_id)))


def detach_later(endpoint_id: str, log: logging.Logger) -> None:
    """See that a pair is removed whose sandbox has ended, without waiting.

    The kernel removes it with the namespace, soon; but a namespace that somebody holds open would keep the old address
    alive on the bridge. Removing what the kernel is removing is harmless.
    """

    def remove() -> None:
        try:
            detach(endpoint_id)
        except OSError as error:
            log.warning("cannot remove interface %s: %s; the next reconcile tries again", host_veth(endpoint_id), error)

    try:
        socket.if_nametoindex(host_veth(endpoint_id))
    except OSError:
        return
    threading.Thread(target=remove, name="detach", daemon=True).start()


def _make(network: Network, options: BridgeOptions, endpoint: Endpoint, mac: str, sandbox: Sandbox, instance: str) -> bool:
    """Make the pair with the inner end born in the sandbox (moving it there would take ten times as long).

    True: it is new. False: it was there, in this very sandbox, and is a port of the bridge again if it was not.
    """
    name = host_veth(endpoint.id)
    requests = _requests(network, options, endpoint, name, instance)
    target = os.open(sandbox.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with Rtnl() as rtnl:
            for _ in range(2):
                pair = _pair(name, endpoint.interface, mac, options.mtu, target)
                try:
                    rtnl.run(pair, *requests)
                except OSError as error:
                    if error.errno != errno.EEXIST:
                        rtnl.run(delete_link(name))
                        raise
                else:
                    return True
                link = rtnl.link(name)
                if link is None:
                    raise Conflict(
                        f'container {endpoint.container.name} has an interface "{endpoint.interface}" already; give this'
                        " endpoint another name"
                    )
                if within(sandbox.path, partial(_is_peer, endpoint.interface, link.index)):
                    return False
                rtnl.run(delete_link(name))  # of an earlier life of this endpoint, in another sandbox
    finally:
        os.close(target)
    raise Conflict(f'interface "{name}" comes back whenever it is removed; another process makes it')


def _pair(name: str, inner: str, mac: str, mtu: int, target: int) -> Request:
    peer = [("IFLA_IFNAME", inner), ("IFLA_ADDRESS", mac), ("IFLA_MTU", mtu), ("IFLA_NET_NS_FD", target)]
    data = {"attrs": [("VETH_INFO_PEER", {"attrs": peer})]}
    info = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)]}
    return new_link(link_message(name=name, attributes=[("IFLA_MTU", mtu), ("IFLA_LINKINFO", info)]))


def _requests(network: Network, options: BridgeOptions, endpoint: Endpoint, name: str, instance: str) -> list[Request]:
    """What makes the host's end a marked port of the bridge, up."""
    attributes = [
        ("IFLA_MASTER", socket.if_nametoindex(options.bridge)),
        ("IFLA_IFALIAS", endpoint_alias(instance, network.id, endpoint.id)),
    ]
    if sysctl.read("ipv6", "conf", "all", "disable_ipv6") is not None:
        attributes.append(_NO_LINK_LOCAL)
    requests = [set_link(link_message(name=name, up=True, attributes=attributes))]
    # A kernel that filters bridged packets (br_netfilter) translates a container's call to its own published port on the
    # bridge itself and sends it back out of the same port.
    hairpin = sysctl.read("bridge", "bridge-nf-call-iptables") == "1"
    if hairpin or not options.icc:
        requests.append(set_port(name, isolated=not options.icc, hairpin=hairpin))
    return requests


def _is_peer(inner: str, outer: int) -> bool:
    """Is the sandbox's interface `inner` the other end of the host's interface number `outer`?"""
    with Rtnl() as rtnl:
        link = rtnl.link(inner)
    return link is not None and link.kind == "veth" and link.peer == outer


def _configure(endpoint: Endpoint, attachment: Attachment, *, fresh: bool) -> None:
    """Runs in the sandbox: addresses, interfaces up, routes."""
    index = socket.if_nametoindex(endpoint.interface)
    ipv6 = any(address.version == 6 for address in endpoint.addresses)
    sysctl.write("0" if ipv6 else "1", "ipv6", "conf", endpoint.interface, "disable_ipv6")
    requests = [set_link(link_message(name="lo", up=True)), set_link(link_message(index=index, up=True))]
    requests += [add_address(index, address) for address in endpoint.addresses]
    for version, gateway, wanted in (
        (4, attachment.gateway4, endpoint.default_route4),
        (6, attachment.gateway6, endpoint.default_route6),
    ):
        if wanted and gateway is not None:
            requests.append(default_route(index, gateway))
        elif not fresh and (version == 4 or ipv6):
            requests.append(no_default_route(index, version))
    with Rtnl() as rtnl:
        rtnl.run(*requests)


def _gateway(network: Network, options: BridgeOptions, endpoint: Endpoint, version: int) -> Address | None:
    """Where the endpoint's packets for elsewhere go; None where there is no elsewhere."""
    if network.internal or options.gateway_mode(version) == "isolated":
        return None
    for pool in network.pools:
        if pool.subnet.version == version and any(address.ip in pool.subnet for address in endpoint.addresses):
            return _of_pool(pool)
    return None


def _of_pool(pool: Pool) -> Address | None:
    other = pool.auxiliary.get(CONTAINER_GATEWAY[pool.subnet.version])
    if other is None:
        return pool.gateway
    return type(pool.subnet.network_address)(other)
