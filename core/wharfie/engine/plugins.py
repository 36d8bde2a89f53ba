"""What the engine knows of its drivers beyond the drivers themselves: who uses them, what they owe, what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wharfie.engine.settings import EngineSettings
from wharfie.plugins.contract import CONTRACTS
from wharfie.plugins.doctor import Finding, examine
from wharfie.plugins.remote.trial import Trial
from wharfie.plugins.states import Refusal
from wharfie.plugins.supervisor import Supervised
from wharfie.spi import SPI_VERSION
from wharfie.spi.driver import Deadline
from wharfie.spi.errors import NotFound, WharfieError

if TYPE_CHECKING:
    from wharfie.engine.engine import Engine

ALWAYS = (("network", "host"), ("network", "null"), ("ipam", "default"))
"""Drivers that no key names and that containers need all the same."""


def named(settings: EngineSettings, storage_driver: str) -> Mapping[tuple[str, str], str]:
    """Kind and name of the drivers that the configuration names, with the key that does; defaults included."""
    found = {
        ("storage", storage_driver): "storage-driver",
        ("runtime", settings.default_runtime): "default-runtime",
        ("network", settings.default_network_driver): "default-network-driver",
        ("volume", settings.default_volume_driver): "default-volume-driver",
        ("log", settings.log_driver): "log-driver",
        ("registry", settings.registry_driver): "registry-driver",
    }
    found |= {("authz", name): "authorization-plugins" for name in settings.authorization_plugins}
    found |= {("registry", name): f"registries.{host}" for host, name in settings.registries.items()}
    return found


def users(engine: Engine, kind: str, name: str) -> list[str]:
    """Who uses a driver: keys of daemon.json, and objects by their names."""
    key = named(engine.settings, engine.system.storage_driver).get((kind, name))
    found = [f"daemon.json: {key}"] if key else []
    containers = engine.containers.catalog
    match kind:
        case "volume":
            found += [f"volume {record.name}" for record in engine.volumes.all() if record.driver == name]
        case "network":
            found += [f"network {record.name}" for record in engine.networks.all() if record.driver == name]
        case "ipam":
            found += [f"network {one.name}" for one in engine.networks.all() if one.pools and one.ipam_driver == name]
        case "runtime":
            found += [f"container {one.name}" for one in containers if one.runtime == name]
        case "log":
            found += [f"container {one.name}" for one in containers if one.log_driver == name]
        case "storage":
            found += [f"container {one.name}" for one in containers if one.storage_driver == name]
    return found


async def doctor(engine: Engine) -> list[Finding]:
    """All that is wrong, the debts included."""
    needed = {*named(engine.settings, engine.system.storage_driver), *ALWAYS}
    needed |= {
        (row.kind, row.name)
        for row in engine.drivers.states()
        if row.kind in CONTRACTS and users(engine, row.kind, row.name)
    }
    found = await examine(engine.drivers, needed)
    for debt in engine.debts:
        what = f"{debt.method} of {debt.object} is owed since {debt.tries} tries: {debt.error}"
        fix = "It is tried again each minute, and at once when the driver recovers"
        found.append(Finding(subject=f"{debt.kind}.{debt.driver}", what=what, fix=fix))
    return found


async def inspect(engine: Engine, kind: str, name: str) -> dict[str, Any]:
    """Everything about one driver. Errors: NotFound."""
    drivers = engine.drivers
    row = next((row for row in drivers.states() if (row.kind, row.name) == (kind, name)), None)
    if kind not in CONTRACTS or row is None:
        raise NotFound(f"there is no driver {kind}.{name}; `wharfie plugin ls` lists those that there are")
    seen = await drivers.look(kind, name)
    about = await _about(engine, seen)
    return {
        "Kind": kind,
        "Name": name,
        "Distribution": row.distribution,
        "Version": row.version,
        "State": row.state.value,
        "Cause": row.cause or about.pop("Refused", ""),
        "Remedy": row.remedy,
        "CoreSpi": SPI_VERSION,
        **drivers.facts(kind, name),
        "Deadlines": _deadlines(engine, kind, name),
        "UsedBy": users(engine, kind, name),
        "Debts": [
            {"Method": debt.method, "Object": debt.object, "Tries": debt.tries, "Error": debt.error}
            for debt in engine.debts
            if (debt.kind, debt.driver) == (kind, name)
        ],
        "Leaks": list(drivers.leaks(kind, name)),
        **about,
    }


async def _about(engine: Engine, seen: Refusal | Trial | Supervised[Any]) -> dict[str, Any]:
    if isinstance(seen, Refusal):
        return {"Spi": "", "Capabilities": None, "Settings": None, "Refused": seen.cause, "Methods": {}, "Circuit": None}
    if isinstance(seen, Trial):
        refused = seen.refusal.cause if seen.refusal else "; ".join(one.what for one in seen.problems if one.fatal)
        return {
            "Spi": seen.spi,
            "Capabilities": None,  # known when it is open
            "Settings": seen.schema,
            "Refused": refused,
            "Methods": {},
            "Circuit": None,
        }
    circuit = seen.supervisor.circuit
    return {
        "Spi": seen.driver_class.spi,
        "Capabilities": sorted(str(one) for one in seen.capabilities),
        "Settings": await _schema(engine, seen),
        "Methods": {
            name: {"Calls": one.calls, "Failures": one.failures, "Seconds": round(one.seconds, 6)}
            for name, one in sorted(seen.figures.items())
        },
        "Circuit": {"Open": circuit.open, "ProbeIn": circuit.wait(), "Cause": circuit.cause},
        "LostWorkers": seen.supervisor.lost,
    }


async def _schema(engine: Engine, driver: Supervised[Any]) -> Mapping[str, Any] | None:
    """Of the settings of an open driver: its model is imported already, here or in its own process."""
    try:
        return await engine.drivers.schema(driver)
    except WharfieError as error:
        return {"error": error.message}


def _deadlines(engine: Engine, kind: str, name: str) -> dict[str, str]:
    try:
        rules = engine.drivers.options(kind, name).methods
    except Refusal:
        return {}
    return {method: _words(rule.deadline) for method, rule in sorted(rules.items())}


def _words(limit: Deadline) -> str:
    parts = [f"{limit.total:g} s"] if limit.total is not None else []
    return " and ".join([*parts, *([f"{limit.idle:g} s without progress"] if limit.idle is not None else [])])
