"""The hooks by which legacy plugins become drivers. Looking for one never waits long: a connection has a second, the
handshake three, and only the plugin that is asked for is connected to.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from wharfie.spi.driver import Driver, Problem
from wharfie.spi.errors import WharfieError
from wharfie.spi.hooks import hookimpl
from wharfie_docker_plugins.authz import LegacyAuthz
from wharfie_docker_plugins.client import Handshakes, Plugin
from wharfie_docker_plugins.ipam import LegacyIpam
from wharfie_docker_plugins.log import LegacyLog
from wharfie_docker_plugins.network import LegacyNetwork
from wharfie_docker_plugins.places import BadPlace, find, names
from wharfie_docker_plugins.volume import LegacyVolume

log = logging.getLogger(__name__)

ADAPTERS: Mapping[str, tuple[str, type[Driver[Any]]]] = {
    "volume": ("VolumeDriver", LegacyVolume),
    "network": ("NetworkDriver", LegacyNetwork),
    "ipam": ("IpamDriver", LegacyIpam),
    "log": ("LogDriver", LegacyLog),
    "authz": ("authz", LegacyAuthz),
}
"""Kind → the subsystem that a plugin names in its handshake, and the adapter."""

_HANDSHAKES = Handshakes()


@hookimpl
def find_driver(kind: str, name: str) -> type[Driver[Any]] | None:
    """An adapter for the legacy plugin of this name, if it is there and implements this kind."""
    if kind not in ADAPTERS:
        return None
    subsystem, adapter = ADAPTERS[kind]
    try:
        place = find(name)
        if place is None or subsystem not in _HANDSHAKES.implements(place):
            return None
    except (BadPlace, WharfieError) as error:
        log.error('the legacy plugin "%s" cannot be used: %s', name, error)
        return None
    return type(adapter.__name__, (adapter,), {"name": name, "plugin": Plugin(name), "__module__": adapter.__module__})


@hookimpl
def known_drivers(kind: str) -> Sequence[str]:
    """Plugins that were used already; others are not connected to for a list."""
    return _HANDSHAKES.known(ADAPTERS[kind][0]) if kind in ADAPTERS else ()


@hookimpl
def doctor_checks() -> Sequence[Problem]:
    """Plugins whose socket nobody answers, and files that cannot be understood."""
    problems = []
    for name in names():
        try:
            place = find(name)
            if place is not None:
                _HANDSHAKES.implements(place)
        except (BadPlace, WharfieError) as error:
            problems.append(Problem(what=str(error), fix="start the plugin, or remove its socket or file", fatal=False))
    return problems
