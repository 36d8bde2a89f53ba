"""A driver's part of daemon.json: three keys are the core's, the rest is checked by the driver's own model.

"drivers": {"volume.acme": {"server": "10.0.0.5", "deadlines": {"mount": 30}, "workers": 4}}
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel, ValidationError

from wharfie.plugins.contract import CONTRACTS, Method, methods
from wharfie.plugins.inventory import Entry
from wharfie.plugins.states import Refusal, State
from wharfie.spi.driver import Driver
from wharfie.spi.errors import InvalidArgument

RESERVED = ("isolate", "deadlines", "workers")
WORKERS = 16
"""Threads of a driver: so many calls into it may hang before it is given up."""

_RESTART = "Correct daemon.json and restart the daemon"
_RELOAD = "Correct daemon.json and reload it with SIGHUP"
_SECRET_WORDS = ("password", "passwd", "secret", "token", "credential")


@dataclass(frozen=True, kw_only=True)
class DriverSettings:
    """What daemon.json says about drivers and plugins.

    `drivers`: by "<kind>.<name>". `plugins`: settings of hook plugins by name. `disabled`: "<kind>.<name>" of drivers,
    names of hook plugins. `required`: names of hook plugins without which containers and images are refused, beside those
    that have settings. Errors: InvalidArgument naming the key.
    """

    drivers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    plugins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    disabled: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for key, value in self.drivers.items():
            kind, dot, name = key.partition(".")
            if kind not in CONTRACTS or not dot or not name:
                raise InvalidArgument(
                    f"drivers.{key}: a key here is KIND.NAME, for example volume.local; kinds are {', '.join(CONTRACTS)}"
                )
            if not isinstance(value, Mapping):
                raise InvalidArgument(f"drivers.{key}: {value!r} is no object of settings")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The settings of one driver, taken apart."""

    methods: Mapping[str, Method]  # with the deadlines of daemon.json
    workers: int
    isolate: bool  # in a process of its own
    own: Mapping[str, Any]  # for the driver's model


def options(settings: DriverSettings, contract: type[Driver[Any]], name: str) -> Options:
    """The settings of the driver `name`. Raises Refusal (misconfigured) naming the key."""
    key = f"{contract.kind}.{name}"
    given = settings.drivers.get(key, {})
    isolate = given.get("isolate", False)
    if not isinstance(isolate, bool):
        raise _misconfigured(f"drivers.{key}.isolate: {isolate!r} is not valid, expected true or false")
    workers = given.get("workers", WORKERS)
    if not isinstance(workers, int) or isinstance(workers, bool) or not 1 <= workers <= 256:
        raise _misconfigured(f"drivers.{key}.workers: {workers!r} is not valid, expected a whole number from 1 to 256")
    return Options(
        methods=_with_deadlines(methods(contract), given.get("deadlines", {}), f"drivers.{key}.deadlines"),
        workers=workers,
        isolate=isolate,
        own={option: value for option, value in given.items() if option not in RESERVED},
    )


def _with_deadlines(known: Mapping[str, Method], given: Any, key: str) -> Mapping[str, Method]:
    if not isinstance(given, Mapping):
        raise _misconfigured(f"{key}: {given!r} is not valid, expected an object of method names and seconds")
    changed = dict(known)
    for name, seconds in given.items():
        if name not in known:
            raise _misconfigured(f"{key}.{name}: there is no such method; known are {', '.join(sorted(known))}")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
            raise _misconfigured(f"{key}.{name}: {seconds!r} is not valid, expected a number of seconds above 0")
        limit = known[name].deadline
        # A stream of any length has no total: there the number is the time without progress.
        limit = replace(limit, idle=seconds) if limit.total is None else replace(limit, total=seconds)
        changed[name] = replace(known[name], deadline=limit)
    return changed


def validate(entry: Entry, driver: type[Driver[Any]], own: Mapping[str, Any]) -> BaseModel | None:
    """The driver's settings as an instance of its model; None for a driver that takes none.

    Imports the model, so it runs in a worker. Raises Refusal (misconfigured, or broken when the model is no model).
    """
    return _validated(entry, f"drivers.{entry.kind}.{entry.name}", driver.settings, own, RESERVED, _RESTART)


def validate_plugin(entry: Entry, plugin: object, own: Mapping[str, Any]) -> BaseModel | None:
    """The same for a hook plugin's part of `plugins`; it takes settings when it has an attribute of that name."""
    return _validated(entry, f"plugins.{entry.name}", str(getattr(plugin, "settings", "")), own, (), _RELOAD)


def _validated(
    entry: Entry, where: str, path: str, own: Mapping[str, Any], reserved: Sequence[str], remedy: str
) -> BaseModel | None:
    if not path:
        if own:
            names = ", ".join(f"{where}.{option}" for option in own)
            raise _misconfigured(f"{names}: {entry.title} takes no settings", remedy)
        return None
    model = _model(path)
    if model is None:
        raise Refusal(
            State.BROKEN,
            f"{entry.title} names {path!r} as its settings, which is no pydantic model",
            f"Ask the authors of {entry.distribution} for a version that is right, or install another one",
        )
    try:
        return model.model_validate(dict(own))
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        faults = "; ".join(_fault(where, model, fault, reserved) for fault in found)
        raise _misconfigured(f"{faults} (settings of {entry.distribution} {entry.version})", remedy) from None


def schema(driver: type[Driver[Any]]) -> Mapping[str, Any] | None:
    """JSON Schema of a driver's settings; None when it takes none. Imports the model, so it runs in a worker."""
    model = _model(driver.settings) if driver.settings else None
    return model.model_json_schema(by_alias=True) if model is not None else None


def _model(path: str) -> type[BaseModel] | None:
    module, _, attribute = path.partition(":")
    model = getattr(importlib.import_module(module), attribute, None)
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def _fault(where: str, model: type[BaseModel], fault: Mapping[str, Any], reserved: Sequence[str]) -> str:
    location = [str(part) for part in fault["loc"]]
    key = ".".join([where, *location])
    names = {info.alias or name: info for name, info in model.model_fields.items()} | dict(model.model_fields)
    if fault["type"] == "extra_forbidden" and len(location) == 1:
        known = sorted(info.alias or name for name, info in model.model_fields.items())
        return f"{key}: no such key; known are {', '.join([*known, *reserved])}"
    expected = _type_name(names[location[0]].annotation) if len(location) == 1 and location[0] in names else ""
    expected = f", expected {expected}" if expected else ""
    if fault["type"] == "missing":
        return f"{key}: missing{expected}"
    return f"{key}: {_shown(key, fault['input'])} is not valid{expected} ({fault['msg']})"


def _shown(key: str, value: Any) -> str:
    """The value as it may appear in an error that goes to clients and logs."""
    if any(word in key.lower() for word in _SECRET_WORDS):
        return "the value (not shown)"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _type_name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def _misconfigured(cause: str, remedy: str = _RESTART) -> Refusal:
    return Refusal(State.MISCONFIGURED, cause, remedy)
