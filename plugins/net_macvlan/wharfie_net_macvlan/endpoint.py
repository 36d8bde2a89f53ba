"""An endpoint's interface: made in the sandbox, on the host's parent."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute, NetlinkError
from pyroute2.netlink import nla
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from wharfie.shim.netns import within
from wharfie.spi.errors import Conflict, InvalidArgument, NotFound
from wharfie.spi.ipam import Address, Interface
from wharfie.spi.network import Attachment, Endpoint, Network, Sandbox
from wharfie_net_macvlan.options import PARENT, Kind, ParentOptions
from wharfie_net_macvlan.parent import find


class _IpvlanData(nla):  # type: ignore[misc]  # the library is untyped
    """IFLA_IPVLAN_* of if_link.h: the library's own lacks the flags."""

    prefix = "IFLA_"
    nla_map = (("IFLA_IPVLAN_UNSPEC", "none"), ("IFLA_IPVLAN_MODE", "uint16"), ("IFLA_IPVLAN_FLAGS", "uint16"))


ifinfmsg.ifinfo.register_link_kind(module={"ipvlan": _IpvlanData})

IFA_F_NODAD = 0x02
RT_SCOPE_LINK = 253


def attach(network: Network, options: ParentOptions, endpoint: Endpoint, sandbox: Sandbox, mark: str) -> Attachment:
    """Make the interface, or bring the one that is there to what the endpoint says. A failure leaves nothing.

    `mark` goes into the interface's alias, so that it is known again. Errors: NotFound (the sandbox is gone), Conflict (its
    interface's name is taken), InvalidArgument (the parent is gone), NetlinkError.
    """
    attachment = Attachment(
        interface=endpoint.interface,
        mac=_mac(options, endpoint),
        addresses=endpoint.addresses,
        gateway4=_gateway(network, options, endpoint, 4),
        gateway6=_gateway(network, options, endpoint, 6),
        data={"parent": options.parent},
    )
    try:
        fresh = _make(options, endpoint.interface, attachment.mac, sandbox)
        try:
            within(sandbox.path, partial(_configure, options, endpoint, attachment, mark, fresh=fresh))
        except BaseException:
            if fresh:
                within(sandbox.path, partial(_delete, options.kind, attachment, mark))
            raise
    except (FileNotFoundError, ProcessLookupError) as error:
        raise NotFound(
            f"network namespace {sandbox.path} of container {endpoint.container.name} is gone: its process has ended"
        ) from error
    return attachment


def detach(kind: Kind, attachment: Attachment, sandbox: Path, mark: str) -> None:
    """Remove the interface that carries `mark`. It may be gone, and so may the sandbox, which takes it along."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        within(sandbox, partial(_delete, kind, attachment, mark))


def _make(options: ParentOptions, name: str, mac: str, sandbox: Sandbox) -> bool:
    """True: it is new. False: an interface of that name is there."""
    target = os.open(sandbox.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with IPRoute() as route:
            parent = find(route, options.parent)
            if parent is None:
                raise InvalidArgument(
                    f'{PARENT}: interface "{options.parent}" is gone; bring it back or remove the network'
                )
            given = dict(options.link)
            if options.mtu:
                given["mtu"] = options.mtu
            if options.kind == "macvlan":
                given["address"] = mac
            try:
                route.link(
                    "add",
                    ifname=name,
                    kind=options.kind,
                    link=parent["index"],
                    net_ns_fd=target,
                    **given,
                )
            except NetlinkError as error:
                if error.code != errno.EEXIST:
                    raise
                return False
    finally:
        os.close(target)
    return True


def _configure(options: ParentOptions, endpoint: Endpoint, attachment: Attachment, mark: str, *, fresh: bool) -> None:
    """Runs in the sandbox: alias, addresses, interfaces up, routes."""
    name = endpoint.interface
    with IPRoute() as route:
        (link,) = route.link("get", ifname=name)
        index = link["index"]
        if not fresh and not _ours(options.kind, link, attachment, mark):
            raise Conflict(
                f'container {endpoint.container.name} has an interface "{name}" already; give this endpoint another name'
            )
        ipv6 = any(address.version == 6 for address in endpoint.addresses)
        setting = Path("/proc/sys/net/ipv6/conf", name, "disable_ipv6")
        if setting.exists():
            setting.write_text("0" if ipv6 else "1")
        route.link("set", index=socket.if_nametoindex("lo"), state="up")
        route.link("set", index=index, ifalias=mark)
        for address in endpoint.addresses:
            _add_address(route, index, address)
        route.link("set", index=index, state="up")
        for gateway, wanted, version in (
            (attachment.gateway4, endpoint.default_route4, 4),
            (attachment.gateway6, endpoint.default_route6, 6),
        ):
            family = socket.AF_INET if version == 4 else socket.AF_INET6
            on_link = {"scope": RT_SCOPE_LINK} if options.routed and version == 4 else {}
            if wanted and gateway is not None:
                route.route("replace", family=family, dst="default", gateway=str(gateway), oif=index)
            elif wanted and options.routed and any(address.version == version for address in endpoint.addresses):
                route.route("replace", family=family, dst="default", oif=index, **on_link)
            elif not fresh:
                with _tolerated(errno.ESRCH):
                    route.route("del", family=family, dst="default", oif=index, **on_link)


def _delete(kind: Kind, attachment: Attachment, mark: str) -> None:
    """Runs in the sandbox."""
    with IPRoute() as route:
        link = find(route, attachment.interface)
        if link is not None and _ours(kind, link, attachment, mark):
            route.link("del", index=link["index"])


def _ours(kind: Kind, link: Any, attachment: Attachment, mark: str) -> bool:
    """Does the interface carry our mark? The kernel takes it only after the interface is there: one made by a daemon that
    was killed in between has none, and is known by its kind and hardware address."""
    found = link.get_attr("IFLA_IFALIAS")
    made = (link.get_attr("IFLA_LINKINFO") or {}).get("IFLA_INFO_KIND")
    same = attachment.mac in ("", link.get_attr("IFLA_ADDRESS"))
    return found == mark or (not found and made == kind and same)


def _add_address(route: IPRoute, index: int, address: Interface) -> None:
    # IPAM made sure that the address is nobody else's: usable at once, no duplicate address detection.
    given = {"flags": IFA_F_NODAD} if address.version == 6 else {}
    with _tolerated(errno.EEXIST):
        route.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen, **given)


@contextlib.contextmanager
def _tolerated(number: int) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code != number:
            raise


def _gateway(network: Network, options: ParentOptions, endpoint: Endpoint, version: int) -> Address | None:
    if network.internal or options.isolated or options.routed:
        return None
    for pool in network.pools:
        if pool.subnet.version == version and any(address.ip in pool.subnet for address in endpoint.addresses):
            return pool.gateway
    return None


def _mac(options: ParentOptions, endpoint: Endpoint) -> str:
    """02:42 and the last four bytes of the first address; with ipvlan the parent's."""
    if options.kind == "ipvlan":
        with IPRoute() as route:
            parent = find(route, options.parent)
            return "" if parent is None else str(parent.get_attr("IFLA_ADDRESS"))
    return endpoint.mac or "02:42:" + endpoint.addresses[0].ip.packed[-4:].hex(":")
