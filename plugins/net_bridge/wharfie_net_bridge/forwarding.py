"""Turning the host into a router, when a network needs one."""

from __future__ import annotations

import logging
from pathlib import Path

from wharfie_net_bridge import sysctl


class Forwarding:
    """IP forwarding of the host. `marker`: a file that remembers, until the next reboot, that we turned it on."""

    def __init__(self, marker: Path, log: logging.Logger) -> None:
        self._marker = marker
        self._log = log

    @property
    def ours(self) -> bool:
        """Did this daemon turn forwarding on since the host booted? Then the host is a router because of us."""
        return self._marker.exists()

    def need(self, version: int) -> None:
        """Turn forwarding on for IPv4 or IPv6, where it is off. Errors: OSError."""
        if version == 4:
            self._turn_on("ipv4", "ip_forward")
        else:
            self._turn_on("ipv6", "conf", "all", "forwarding")

    def _turn_on(self, *names: str) -> None:
        if sysctl.read(*names) != "0":
            return
        if names[0] == "ipv6":
            self._keep_router_advertisements()
        self._marker.touch()
        sysctl.write("1", *names)
        self._log.info("turned on net.%s", ".".join(names))

    def _keep_router_advertisements(self) -> None:
        """A host that forwards IPv6 ignores router advertisements unless told otherwise (accept_ra 2), and would lose
        its own default route."""
        for name in sysctl.interfaces("ipv6"):
            if sysctl.read("ipv6", "conf", name, "accept_ra") == "1":
                sysctl.write("2", "ipv6", "conf", name, "accept_ra")
