"""The driver options of a network on a parent, taken apart and checked."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from wharfie.spi.errors import InvalidArgument
from wharfie.spi.network import Network

PARENT = "parent"
MACVLAN_MODE = "macvlan_mode"
IPVLAN_MODE = "ipvlan_mode"
IPVLAN_FLAG = "ipvlan_flag"
MTU = "com.docker.network.driver.mtu"

Kind = Literal["macvlan", "ipvlan"]
MacvlanMode = Literal["bridge", "private", "vepa", "passthru"]
"""How endpoints on one parent see each other: directly; not at all; by way of a switch outside that sends frames back;
there is only one, and it gets the parent for itself."""
IpvlanMode = Literal["l2", "l3", "l3s"]
"""What the parent's address of hardware is shared by: neighbours on one link; hosts that the parent routes to; the same
with connection tracking and the host's firewall. The kernel numbers them in this order (if_link.h)."""
IpvlanFlag = Literal["bridge", "private", "vepa"]
"""As macvlan's modes. The kernel's bits are in this order: none, 1, 2."""

_NOWHERE: dict[Kind, str] = {"macvlan": "dm-", "ipvlan": "di-"}
_INTERFACE = re.compile(r"[^\s/:]{1,15}")
_TAGGED = re.compile(r"(?P<trunk>.+)\.(?P<tag>[0-9]{1,4})")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentOptions:
    """What a network's options say. `mtu` 0: the parent's."""

    kind: Kind
    parent: str
    shown: dict[str, str]  # the complete options of this kind, as a user writes them
    link: dict[str, Any] = field(default_factory=dict)  # the same, as pyroute2 takes them
    mtu: int
    isolated: bool  # the parent is made for this network and leads nowhere
    routed: bool = False  # there are no neighbours, so no gateway either: all packets go to the parent (l3, l3s)

    def tagged(self) -> tuple[str, int] | None:
        """The trunk and the VLAN that a parent such as eth1.50 stands for; None for any other name."""
        match = _TAGGED.fullmatch(self.parent)
        if match is None or not 1 <= int(match["tag"]) <= 4094:
            return None
        return match["trunk"], int(match["tag"])


def parse(network: Network, kind: Kind, default_parent: str) -> ParentOptions:
    """The options of `network` with defaults for those not given. Errors: InvalidArgument naming the option."""
    nowhere = f"{_NOWHERE[kind]}{network.id[:12]}"
    parent = network.options.get(PARENT) or ("" if network.internal else default_parent) or nowhere
    if not _INTERFACE.fullmatch(parent) or parent in (".", ".."):
        raise InvalidArgument(f'{PARENT}: "{parent}" cannot be the name of an interface')
    if parent == "lo":
        raise InvalidArgument(f"{PARENT}: the loopback interface cannot be the parent of a network of kind {kind}")
    mtu, isolated = _mtu(network), parent == nowhere
    if kind == "macvlan":
        mode = _choice(network, MACVLAN_MODE, get_args(MacvlanMode))
        shown = {PARENT: parent, MACVLAN_MODE: mode}
        return ParentOptions(kind=kind, parent=parent, shown=shown, link={"macvlan_mode": mode}, mtu=mtu, isolated=isolated)
    modes, flags = get_args(IpvlanMode), get_args(IpvlanFlag)
    mode, flag = _choice(network, IPVLAN_MODE, modes), _choice(network, IPVLAN_FLAG, flags)
    return ParentOptions(
        kind=kind,
        parent=parent,
        shown={PARENT: parent, IPVLAN_MODE: mode, IPVLAN_FLAG: flag},
        link={"ipvlan_mode": modes.index(mode), "ipvlan_flags": flags.index(flag)},
        mtu=mtu,
        isolated=isolated,
        routed=mode != "l2",
    )


def _choice(network: Network, option: str, choices: tuple[str, ...]) -> str:
    """The first is the default."""
    value = network.options.get(option) or choices[0]
    if value not in choices:
        raise InvalidArgument(f'{option}: there is no "{value}"; choose one of {", ".join(choices)}')
    return value


def _mtu(network: Network) -> int:
    value = network.options.get(MTU) or "0"
    if not value.isascii() or not value.isdigit() or not (int(value) == 0 or 68 <= int(value) <= 65535):
        raise InvalidArgument(f'{MTU}: "{value}" is not a number from 68 to 65535')
    return int(value)
