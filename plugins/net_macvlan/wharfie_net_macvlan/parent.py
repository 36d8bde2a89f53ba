"""The parent of a network: an interface of the host, or one that is made for the network."""

from __future__ import annotations

import errno
from collections.abc import Collection
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from wharfie.spi.errors import InvalidArgument, Unsupported
from wharfie_net_macvlan.options import PARENT, MacvlanOptions

MODULES = {"dummy": "dummy", "vlan": "8021q"}
"""Kernel module that makes interfaces of a kind."""


def alias(instance: str, network_id: str = "") -> str:
    """What marks (IFLA_IFALIAS) the parents that this daemon made."""
    return f"wharfie-macvlan:{instance}:{network_id}"


def ensure_parent(options: MacvlanOptions, instance: str, network_id: str) -> None:
    """See that the parent is there: a dummy that leads nowhere, or a VLAN of a trunk such as eth1.50, is made if missing.

    May be repeated. Errors: InvalidArgument (no such interface), Unsupported (the kernel lacks the kind), NetlinkError.
    """
    with IPRoute() as route:
        if find(route, options.parent) is not None:
            return
        if options.isolated:
            make(route, options.parent, instance, network_id, kind="dummy")
            return
        tagged = options.tagged()
        trunk = find(route, tagged[0]) if tagged is not None else None
        if tagged is None or trunk is None:
            missing = options.parent if tagged is None else tagged[0]
            raise InvalidArgument(f'{PARENT}: there is no interface "{missing}" on this host')
        make(route, options.parent, instance, network_id, kind="vlan", link=trunk["index"], vlan_id=tagged[1])


def make(route: IPRoute, name: str, instance: str, network_id: str, *, kind: str, **given: Any) -> None:
    """Make an interface, marked and up. It gets its name and its mark by one request, so a parent that a killed daemon
    left half-made has a name that tells."""
    unfinished = _unfinished(instance)
    try:
        route.link("add", ifname=unfinished, kind=kind, **given)
    except NetlinkError as error:
        if error.code != errno.EOPNOTSUPP:
            raise
        raise Unsupported(
            f'{PARENT}: this kernel makes no interface of kind "{kind}" for "{name}"; load it with'
            f" modprobe {MODULES[kind]}, or name an interface that exists"
        ) from error
    link = find(route, unfinished)
    if link is not None:
        route.link("set", index=link["index"], ifname=name, ifalias=alias(instance, network_id), state="up")


def remove_unused(instance: str, used: Collection[str]) -> list[str]:
    """Remove the parents that this daemon made, all but those in `used`; their names. Errors: NetlinkError."""
    removed = []
    with IPRoute() as route:
        for link in route.get_links():
            name = str(link.get_attr("IFLA_IFNAME"))
            marked = str(link.get_attr("IFLA_IFALIAS") or "").startswith(alias(instance))
            if name not in used and (marked or name == _unfinished(instance)):
                route.link("del", index=link["index"])
                removed.append(name)
    return removed


def find(route: IPRoute, name: str) -> Any | None:
    """The interface of that name; None: there is none."""
    try:
        (link,) = route.link("get", ifname=name)
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise
    return link


def _unfinished(instance: str) -> str:
    return f"wm-{instance}"
