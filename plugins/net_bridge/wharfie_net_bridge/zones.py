"""firewalld's zones, asked for and changed over the system's D-Bus (firewalld.dbus(5))."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from jeepney import DBusAddress, new_method_call
from jeepney.io.blocking import DBusConnection, open_dbus_connection
from jeepney.wrappers import DBusErrorResponse, unwrap_msg

from wharfie.spi.errors import Unavailable

_NAME = "org.fedoraproject.FirewallD1"
_ZONES = DBusAddress("/org/fedoraproject/FirewallD1", _NAME, f"{_NAME}.zone")
_PATIENCE = 5.0
"""Seconds for an answer: firewalld answers nobody while it reloads."""


class Zones:
    """A connection to firewalld. Not to be shared by threads."""

    def __init__(self, connection: DBusConnection) -> None:
        self._connection = connection

    def interfaces(self) -> dict[str, str]:
        """The zone of each interface that is in one."""
        (zones,) = self._call("getActiveZones")
        return {name: zone for zone, members in zones.items() for name in members.get("interfaces", ())}

    def add(self, zone: str, interface: str) -> None:
        self._call("addInterface", zone, interface)

    def remove(self, zone: str, interface: str) -> None:
        self._call("removeInterface", zone, interface)

    def _call(self, member: str, *words: str) -> Any:
        message = new_method_call(_ZONES, member, "s" * len(words) or None, words)
        return unwrap_msg(self._connection.send_and_get_reply(message, timeout=_PATIENCE))


@contextlib.contextmanager
def connected() -> Iterator[Zones]:
    """Errors, of what is done inside too: Unavailable (no bus, nobody there, no answer in time, a refusal).

    A connection each time takes under a millisecond, and there is none to lose when the bus is started again.
    """
    try:
        with open_dbus_connection("SYSTEM", auth_timeout=_PATIENCE) as connection:
            yield Zones(connection)
    except (DBusErrorResponse, ValueError, OSError) as error:  # what jeepney cannot read is a ValueError
        raise Unavailable(str(error)) from error
