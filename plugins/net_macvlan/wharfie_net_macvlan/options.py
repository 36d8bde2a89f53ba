"""The driver options of a macvlan network, taken apart and checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from wharfie.spi.errors import InvalidArgument
from wharfie.spi.network import Network

PARENT = "parent"
MODE = "macvlan_mode"
MTU = "com.docker.network.driver.mtu"

Mode = Literal["bridge", "private", "vepa", "passthru"]
"""How endpoints on one parent see each other: directly; not at all; by way of a switch outside that sends frames back;
there is only one, and it gets the parent for itself."""

_INTERFACE = re.compile(r"[^\s/:]{1,15}")
_TAGGED = re.compile(r"(?P<trunk>.+)\.(?P<tag>[0-9]{1,4})")


@dataclass(frozen=True, slots=True, kw_only=True)
class MacvlanOptions:
    """What a network's options say. `mtu` 0: the parent's."""

    parent: str
    mode: Mode
    mtu: int
    isolated: bool  # the parent is made for this network and leads nowhere

    def tagged(self) -> tuple[str, int] | None:
        """The trunk and the VLAN that a parent such as eth1.50 stands for; None for any other name."""
        match = _TAGGED.fullmatch(self.parent)
        if match is None or not 1 <= int(match["tag"]) <= 4094:
            return None
        return match["trunk"], int(match["tag"])


def parse(network: Network, default_parent: str) -> MacvlanOptions:
    """The options of `network` with defaults for those not given. Errors: InvalidArgument naming the option."""
    nowhere = f"dm-{network.id[:12]}"
    parent = network.options.get(PARENT) or ("" if network.internal else default_parent) or nowhere
    if not _INTERFACE.fullmatch(parent) or parent in (".", ".."):
        raise InvalidArgument(f'{PARENT}: "{parent}" cannot be the name of an interface')
    if parent == "lo":
        raise InvalidArgument(f"{PARENT}: the loopback interface cannot be the parent of a macvlan network")
    return MacvlanOptions(parent=parent, mode=_mode(network), mtu=_mtu(network), isolated=parent == nowhere)


def _mode(network: Network) -> Mode:
    value = network.options.get(MODE) or "bridge"
    for mode in get_args(Mode):
        if value == mode:
            return mode  # type: ignore[no-any-return]  # one of the literals
    raise InvalidArgument(f'{MODE}: "{value}" is not a mode; there are {", ".join(get_args(Mode))}')


def _mtu(network: Network) -> int:
    value = network.options.get(MTU) or "0"
    if not value.isascii() or not value.isdigit() or not (int(value) == 0 or 68 <= int(value) <= 65535):
        raise InvalidArgument(f'{MTU}: "{value}" is not a number from 68 to 65535')
    return int(value)
