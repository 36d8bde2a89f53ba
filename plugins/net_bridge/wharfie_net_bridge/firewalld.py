"""Living beside firewalld, which rejects what is forwarded from an interface that is in none of its zones.

Rules of ours in its chains would not do: a zone's chain rejects before they are met. So the daemon's bridges are put into
the zone `trusted`, as an operator would do it with firewall-cmd; a bridge that somebody has put into a zone stays there.
A reload of firewalld forgets that, and is heard by `watch`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from typing import Any

from wharfie_net_bridge import bus
from wharfie_net_bridge.bus import BusError, SystemBus

TABLE = "firewalld"
"""Its nftables table: where that is, firewalld is running."""
ZONE = "trusted"
_NAME, _PATH = "org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1"


class Firewalld:
    """The bridges in firewalld's zone. Thread-safe."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._ours: set[str] = set()

    def settle(self, bridges: Collection[str]) -> None:
        """See that these bridges are in a zone, and that earlier ones are in ours no more. A failure is logged."""
        with self._lock:
            try:
                self._settle(set(bridges))
            except (BusError, OSError) as error:
                self._log.warning(
                    "firewalld does not take bridges into its zone %s, so containers may not reach the outside: %s;"
                    " firewall-cmd --zone=%s --add-interface=BRIDGE does it by hand",
                    *(ZONE, error, ZONE),
                )

    def _settle(self, bridges: set[str]) -> None:
        with SystemBus(bus.SOCKET) as connection:

            def call(member: str, *words: str) -> list[Any]:
                return connection.call(_NAME, _PATH, f"{_NAME}.zone", member, *words)

            [zones] = call("getActiveZones")
            placed = {name: zone for zone, members in zones.items() for name in members.get("interfaces", ())}
            for name in sorted(bridges - placed.keys()):
                call("addInterface", ZONE, name)
                self._ours.add(name)
            for name in sorted(self._ours - bridges):
                if placed.get(name) == ZONE:
                    call("removeInterface", ZONE, name)
                self._ours.discard(name)
