"""The parent of a network: an interface of the host, or one that is made for the network."""

from __future__ import annotations

import errno
from collections.abc import Collection, Sequence
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from wharfie.spi.errors import InvalidArgument, Unsupported
from wharfie_net_macvlan.options import PARENT, Kind, ParentOptions

MODULES = {"vlan": "8021q"}
"""Kernel module that makes interfaces of a kind, where it has another name."""
LEADING_NOWHERE = ("dummy", "ifb")
"""Kinds of interfaces that have a carrier and drop what they are given. Every kernel has one of them, most have both."""


def alias(kind: Kind, instance: str, network_id: str = "") -> str:
    """What marks (IFLA_IFALIAS) the parents that this daemon made for networks of `kind`."""
    return f"wharfie-{kind}:{instance}:{network_id}"


def ensure_parent(options: ParentOptions, instance: str, network_id: str) -> None:
    """See that the parent is there: one that leads nowhere, or a VLAN of a trunk such as eth1.50, is made if missing.

    May be repeated. Errors: InvalidArgument (no such interface), Unsupported (the kernel lacks the kind), NetlinkError.
    """
    with IPRoute() as route:
        if find(route, options.parent) is not None:
            return
        if options.isolated:
            mark = alias(options.kind, instance, network_id)
            make(route, options.parent, _unfinished(options.kind, instance), mark, kinds=LEADING_NOWHERE)
            return
        tagged = options.tagged()
        trunk = find(route, tagged[0]) if tagged is not None else None
        if tagged is None or trunk is None:
            missing = options.parent if tagged is None else tagged[0]
            raise InvalidArgument(f'{PARENT}: there is no interface "{missing}" on this host')
        mark, given = alias(options.kind, instance, network_id), {"link": trunk["index"], "vlan_id": tagged[1]}
        make(route, options.parent, _unfinished(options.kind, instance), mark, kinds=("vlan",), **given)


def make(route: IPRoute, name: str, unfinished: str, mark: str, *, kinds: Sequence[str], **given: Any) -> None:
    """Make an interface of the first of `kinds` that the kernel has, marked and up.

    It gets its name and its mark by one request, so a parent that a killed daemon left half-made has a name that tells.
    """
    for kind in kinds:
        try:
            route.link("add", ifname=unfinished, kind=kind, **given)
        except NetlinkError as error:
            if error.code != errno.EOPNOTSUPP:
                raise
        else:
            break
    else:
        modules = " or ".join(f"modprobe {MODULES.get(kind, kind)}" for kind in kinds)
        raise Unsupported(
            f'{PARENT}: this kernel makes no interface of kind "{kinds[0]}" for "{name}"; load it with {modules}, or name'
            " an interface that exists"
        )
    link = find(route, unfinished)
    if link is not None:
        route.link("set", index=link["index"], ifname=name, ifalias=mark, state="up")


def remove_unused(kind: Kind, instance: str, used: Collection[str]) -> list[str]:
    """Remove the parents that this daemon made for networks of `kind`, all but those in `used`; their names.

    Errors: NetlinkError.
    """
    removed = []
    with IPRoute() as route:
        for link in route.get_links():
            name = str(link.get_attr("IFLA_IFNAME"))
            marked = str(link.get_attr("IFLA_IFALIAS") or "").startswith(alias(kind, instance))
            if name not in used and (marked or name == _unfinished(kind, instance)):
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


def makes(kind: Kind) -> bool:
    """Does this kernel have such interfaces? It is asked for one without a parent, which it refuses in any case."""
    with IPRoute() as route:
        try:
            route.link("add", ifname="probe", kind=kind)
        except NetlinkError as error:
            return int(error.code) != errno.EOPNOTSUPP
    return True


def _unfinished(kind: Kind, instance: str) -> str:
    return f"w{kind[0]}-{instance}"
