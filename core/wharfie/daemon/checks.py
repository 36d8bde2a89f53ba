"""What can be said about a configuration before anything starts: are its drivers there, and do their settings fit?"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

from wharfie.daemon.config import DaemonConfig
from wharfie.daemon.listeners import check_hosts, tls_context
from wharfie.daemon.mapping import driver_sections
from wharfie.plugins.contract import CONTRACTS
from wharfie.plugins.inventory import Inventory, core_version
from wharfie.plugins.loader import absent, choose, import_driver
from wharfie.plugins.settings import DriverSettings, options, validate
from wharfie.plugins.states import Refusal
from wharfie.spi.errors import InvalidArgument

log = logging.getLogger("wharfie.daemon")

_DEFAULT_STORAGE = "overlay2"
_FIXED: Sequence[tuple[str, str]] = (("network", "host"), ("network", "null"), ("ipam", "default"))
"""Drivers that no key names and that containers need all the same."""

_KEYS: Mapping[str, str] = {
    "storage-driver": "storage",
    "default-runtime": "runtime",
    "default-network-driver": "network",
    "default-volume-driver": "volume",
    "log-driver": "log",
    "registry-driver": "registry",
}


def check_configuration(config: DaemonConfig) -> None:
    """All that can be said about a configuration without starting. Errors: InvalidArgument."""
    check_hosts(config)
    tls_context(config)
    check_drivers(config)


def driver_settings(config: DaemonConfig) -> DriverSettings:
    """What `wharfie.plugins` is told. Errors: InvalidArgument naming the key."""
    return DriverSettings(
        drivers=driver_sections(config),
        disabled=frozenset(config.disabled_plugins),
        required=frozenset(config.required_plugins),
    )


def report_missing(config: DaemonConfig) -> None:
    """Say in the log which driver that will be needed is not installed, and how to install it. Imports none of them."""
    inventory = Inventory()
    for kind, name in dict.fromkeys([*_named(config), *_FIXED]):
        if not inventory.find(kind, name):
            missing = absent(kind, name, inventory.names(kind))
            log.warning("%s. %s", missing.cause, missing.remedy)


def check_drivers(config: DaemonConfig) -> None:
    """Import every driver that the configuration mentions and validate its settings. Errors: InvalidArgument for the first
    one that could not be used; a default that is not installed is only reported."""
    settings = driver_settings(config)
    inventory = Inventory()
    given = set(_given(config))
    for kind, name in dict.fromkeys([*_named(config), *given]):
        try:
            _check(settings, inventory, kind, name)
        except Refusal as refusal:
            if (kind, name) in given:
                raise InvalidArgument(f"{refusal.cause}. {refusal.remedy}") from None
            log.warning("%s. %s", refusal.cause, refusal.remedy)


def _check(settings: DriverSettings, inventory: Inventory, kind: str, name: str) -> None:
    found = inventory.find(kind, name)
    if not found:
        raise absent(kind, name, inventory.names(kind))
    entry = choose(kind, name, found, settings.disabled, core_version())
    contract = CONTRACTS[kind]
    validate(entry, import_driver(entry, contract), options(settings, contract, name).own)


def _named(config: DaemonConfig) -> Iterator[tuple[str, str]]:
    """Kind and name of what the keys say, defaults included."""
    for key, kind in _KEYS.items():
        yield kind, getattr(config, key.replace("-", "_")) or _DEFAULT_STORAGE
    for name in config.authorization_plugins:
        yield "authz", name


def _given(config: DaemonConfig) -> Iterator[tuple[str, str]]:
    """What the user named: by a key, or by settings in `drivers`."""
    for key, kind in _KEYS.items():
        attribute = key.replace("-", "_")
        if attribute in config.model_fields_set and getattr(config, attribute):
            yield kind, getattr(config, attribute)
    yield from (("authz", name) for name in config.authorization_plugins)
    yield from (("registry", name) for name in config.registries.values())
    for section in driver_sections(config):
        kind, _, name = section.partition(".")
        yield kind, name
