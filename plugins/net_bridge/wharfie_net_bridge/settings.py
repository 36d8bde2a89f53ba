"""This driver's part of daemon.json."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


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
    mtu: Annotated[int, Field(ge=68, le=65535)] = 1500
    """MTU of networks that do not set com.docker.network.driver.mtu."""

    @property
    def families(self) -> frozenset[int]:
        """The versions of IP that have firewall rules."""
        return frozenset(version for version, wanted in ((4, self.iptables), (6, self.ip6tables)) if wanted)
