"""Living beside firewalld, which rejects what is forwarded from an interface that is in none of its zones.

Rules of ours in its chains would not do: a zone's chain rejects before they are met. So the daemon's bridges are put into
the zone `trusted`, as an operator would do it with firewall-cmd; a bridge that somebody has put into a zone stays there.
A reload of firewalld forgets that, and is heard by `watch`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection

from wharfie.spi.errors import Unavailable

TABLE = "firewalld"
"""Its nftables table: where that is, firewalld is running."""
ZONE = "trusted"


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
            except Unavailable as error:
                self._log.warning(
                    "firewalld does not take bridges into its zone %s, so containers may not reach the outside: %s;"
                    " firewall-cmd --zone=%s --add-interface=BRIDGE does it by hand",
                    *(ZONE, error.message, ZONE),
                )

    def _settle(self, bridges: set[str]) -> None:
        from wharfie_net_bridge import (
            zones,
        )  # jeepney takes longer to import than all of this driver, and few hosts need it

        with zones.connected() as firewalld:
            placed = firewalld.interfaces()
            for name in sorted(bridges - placed.keys()):
                firewalld.add(ZONE, name)
                self._ours.add(name)
            for name in sorted(self._ours - bridges):
                if placed.get(name) == ZONE:
                    firewalld.remove(ZONE, name)
                self._ours.discard(name)
