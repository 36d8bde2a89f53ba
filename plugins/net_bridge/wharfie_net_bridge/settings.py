"""This driver's part of daemon.json."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_LARGEST_MARK = 0xFFFFFFFF


def _mark(text: str) -> str:
    """VALUE or VALUE/MASK, decimal or hexadecimal."""
    if text:
        words = text.split("/")
        if not all(re.fullmatch(r"0[xX][0-9a-fA-F]+|[0-9]+", word) for word in words) or len(words) > 2:
            raise ValueError(f'"{text}" is no firewall mark: want VALUE or VALUE/MASK, decimal or with 0x')
        if not all(0 <= _number(word) <= _LARGEST_MARK for word in words):
            raise ValueError(f'"{text}" is no firewall mark: it has more than 32 bits')
    return text


def _number(word: str) -> int:
    return int(word, 16 if word[:2].lower() == "0x" else 10)


class BridgeSettings(BaseModel):
    """Docker's keys of the same names."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    iptables: bool = True
    """False: make no firewall rules for IPv4. Then nothing is translated, masqueraded or kept apart, and published ports
    are served by the core's proxy alone."""
    ip6tables: bool = True
    """The same for IPv6."""
    ip_forward: Annotated[bool, Field(alias="ip-forward")] = True
    """Turn the host's IP forwarding on when a network needs it."""
    ip_forward_no_drop: Annotated[bool, Field(alias="ip-forward-no-drop")] = False
    """Do not drop what the host would then route between networks that are no containers'."""
    allow_direct_routing: Annotated[bool, Field(alias="allow-direct-routing")] = False
    """Let other hosts reach published ports by the containers' own addresses too, but those that are bound to loopback."""
    bridge_accept_fwmark: Annotated[str, AfterValidator(_mark), Field(alias="bridge-accept-fwmark")] = ""
    """Packets that carry this mark reach every port of every container that is not on an internal network."""
    mtu: Annotated[int, Field(ge=68, le=65535)] = 1500
    """MTU of networks that do not set com.docker.network.driver.mtu."""

    @property
    def mark(self) -> tuple[int, int] | None:
        """Value and mask of `bridge_accept_fwmark`."""
        if not self.bridge_accept_fwmark:
            return None
        value, _, mask = self.bridge_accept_fwmark.partition("/")
        return _number(value), _number(mask) if mask else _LARGEST_MARK

    @property
    def families(self) -> frozenset[int]:
        """The versions of IP that have firewall rules."""
        return frozenset(version for version, wanted in ((4, self.iptables), (6, self.ip6tables)) if wanted)
