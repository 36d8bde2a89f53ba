"""What can be said about a configuration before anything starts: are its drivers there, and do their settings fit?"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping

from wharfie.daemon.config import DaemonConfig
from wharfie.daemon.listeners import check_hosts, mirror_context, tls_context
from wharfie.daemon.mapping import driver_sections
from wharfie.engine.plugins import ALWAYS
from wharfie.plugins.contract import CONTRACTS
from wharfie.plugins.drivers import Drivers
from wharfie.plugins.hooks import Hooks
from wharfie.plugins.inventory import Inventory, core_version
from wharfie.plugins.loader import absent, check_class, choose, import_driver
from wharfie.plugins.settings import DriverSettings, options, validate
from wharfie.plugins.states import Refusal
from wharfie.spi.errors import InvalidArgument

log = logging.getLogger("wharfie.daemon")

_DEFAULT_STORAGE = "overlay2"

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
    mirror_context(config.mirror)
    check_drivers(config)


def driver_settings(config: DaemonConfig) -> DriverSettings:
    """What `wharfie.plugins` is told. Errors: InvalidArgument naming the key."""
    return DriverSettings(
        drivers=driver_sections(config),
        plugins=config.plugins,
        disabled=frozenset(config.disabled_plugins),
        required=frozenset(config.required_plugins),
    )


async def report_missing(config: DaemonConfig, drivers: Drivers) -> None:
    """Say in the log which driver that will be needed is not there, and how to install it. Imports none of them."""
    for kind, name in dict.fromkeys([*_named(config), *ALWAYS]):
        known = drivers.known(CONTRACTS[kind])
        if name not in known and await drivers.hooks.find_driver(kind, name) is None:
            missing = absent(kind, name, known)
            log.warning("%s. %s", missing.cause, missing.remedy)


def check_drivers(config: DaemonConfig) -> None:
    """Import every driver that the configuration mentions and validate its settings. Errors: InvalidArgument for the first
    one that could not be used; a default that is not installed is only reported."""
    asyncio.run(_check_drivers(config, driver_settings(config), Inventory()))


async def _check_drivers(config: DaemonConfig, settings: DriverSettings, inventory: Inventory) -> None:
    given = set(_given(config))
    hooks = Hooks(inventory, settings)
    try:
        for kind, name in dict.fromkeys([*_named(config), *given]):
            try:
                await _check(settings, inventory, hooks, kind, name)
            except Refusal as refusal:
                if (kind, name) in given:
                    raise InvalidArgument(f"{refusal.cause}. {refusal.remedy}") from None
                log.warning("%s. %s", refusal.cause, refusal.remedy)
        await _check_plugins(config, hooks)
    finally:
        hooks.close()


async def _check_plugins(config: DaemonConfig, hooks: Hooks) -> None:
    """Those that have settings. Errors: InvalidArgument."""
    if config.plugins:
        await hooks.load()
    for row in hooks.states():
        if row.name in config.plugins and row.cause:
            raise InvalidArgument(f"{row.cause}. {row.remedy}")


async def _check(settings: DriverSettings, inventory: Inventory, hooks: Hooks, kind: str, name: str) -> None:
    found, contract = inventory.find(kind, name), CONTRACTS[kind]
    if found:
        entry = choose(kind, name, found, settings.disabled, core_version())
        driver = import_driver(entry, contract)
    else:
        dynamic = await hooks.find_driver(kind, name)
        if dynamic is None:
            raise absent(kind, name, inventory.names(kind))
        entry, driver = dynamic[0], check_class(dynamic[0], contract, dynamic[1])
    validate(entry, driver, options(settings, contract, name).own)


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
