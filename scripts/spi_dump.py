"""Writes docs/spi/1.json, every signature that drivers and hook plugins may rely on.

`python scripts/spi_dump.py` writes it anew. tests/docs/test_spi.py refuses a change that takes something away
(docs/compatibility.md), and a dump that lags behind the code.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import json
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import wharfie.spi
from wharfie.plugins.contract import CONTRACTS
from wharfie.spi import SPI_VERSION
from wharfie.spi.driver import Deadline, Driver
from wharfie.spi.hooks import HookSpecs

DUMP = Path(__file__).parents[1] / "docs" / "spi" / f"{SPI_VERSION.partition('.')[0]}.json"

Entry = dict[str, Any]


def dump() -> Entry:
    """All public names of `wharfie.spi`, by module."""
    modules = sorted(module.name for module in pkgutil.iter_modules(wharfie.spi.__path__))
    return {
        "spi": SPI_VERSION,
        "modules": {name: _module(importlib.import_module(f"wharfie.spi.{name}")) for name in modules},
    }


def _module(module: ModuleType) -> Entry:
    found = {}
    for name, value in vars(module).items():
        if name.startswith("_") or isinstance(value, ModuleType) or name in ("annotations", "TYPE_CHECKING"):
            continue
        if getattr(value, "__module__", module.__name__) != module.__name__ or type(value).__name__ == "TypeVar":
            continue
        found[name] = _entry(value)
    return dict(sorted(found.items()))


def _entry(value: Any) -> Entry:
    if isinstance(value, type):
        return _class(value)
    if inspect.isfunction(value):
        return {"function": _parameters(value), "returns": _text(inspect.signature(value).return_annotation)}
    return {"constant": type(value).__name__}


def _class(value: type) -> Entry:
    entry: Entry = {}
    if issubclass(value, enum.Enum):
        return {"enumeration": {member.name: member.value for member in value}}
    if issubclass(value, BaseException):
        entry["bases"] = [base.__name__ for base in value.__bases__]
    if dataclasses.is_dataclass(value):
        entry["fields"] = {
            one.name: {
                "type": _text(one.type),
                "required": one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING,
            }
            for one in dataclasses.fields(value)
        }
    role = "called by the core" if issubclass(value, Driver) or value is HookSpecs else "called by drivers"
    methods = {
        name: _method(member)
        for name, member in sorted(vars(value).items())
        if inspect.isfunction(member) and not name.startswith("_")
    }
    if methods:
        entry |= {"role": role, "methods": methods}
    return entry


def _method(function: Any) -> Entry:
    limit: Deadline | None = getattr(function, "__deadline__", None)
    entry: Entry = {"parameters": _parameters(function), "returns": _text(inspect.signature(function).return_annotation)}
    if getattr(function, "__isabstractmethod__", False):
        entry["abstract"] = True
    if limit is not None:
        entry["deadline"] = {"total": limit.total, "idle": limit.idle}
    return entry


def _parameters(function: Any) -> list[Entry]:
    return [
        {
            "name": one.name,
            "kind": one.kind.name.lower(),
            "type": _text(one.annotation),
            "required": one.default is inspect.Parameter.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD),
        }
        for one in inspect.signature(function).parameters.values()
        if one.name != "self"
    ]


def _text(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


def losses(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What `old` promised and `new` does not keep, a sentence each."""
    found = []
    for module, names in old["modules"].items():
        for name, before in names.items():
            where = f"wharfie.spi.{module}.{name}"
            now = new["modules"].get(module, {}).get(name)
            found += [f"{where} is gone"] if now is None else _lost(where, before, now)
    return found


def _lost(where: str, old: Entry, new: Entry) -> list[str]:
    found = []
    if old.keys() - new.keys():
        found.append(f"{where} is not what it was: {', '.join(sorted(old.keys() - new.keys()))} is gone")
    for key in ("constant", "returns", "bases"):
        if key in old and key in new and old[key] != new[key]:
            found.append(f"{where}: {key} was {old[key]} and is {new[key]}")
    for member, value in old.get("enumeration", {}).items():
        if new.get("enumeration", {}).get(member) != value:
            found.append(f"{where}.{member} was {value!r}")
    found += _lost_fields(where, old.get("fields", {}), new.get("fields", {}))
    if "function" in old and "function" in new:
        found += _lost_parameters(where, old["function"], new["function"], may_grow=True)
    found += _lost_methods(where, old, new)
    return found


def _lost_fields(where: str, old: Entry, new: Entry) -> list[str]:
    found = []
    for name, before in old.items():
        now = new.get(name)
        if now is None:
            found.append(f"{where}.{name} is gone")
        elif now["type"] != before["type"] or (now["required"] and not before["required"]):
            found.append(f"{where}.{name} was {before} and is {now}")
    found += [
        f"{where}.{name} is new and has no default" for name in new.keys() - old.keys() if old and new[name]["required"]
    ]
    return found


def _lost_methods(where: str, old: Entry, new: Entry) -> list[str]:
    before, now = old.get("methods", {}), new.get("methods", {})
    contract = old.get("role") == "called by the core"
    found = []
    for name, method in before.items():
        place = f"{where}.{name}"
        if name not in now:
            found.append(f"{place} is gone")
            continue
        fresh = now[name]
        # A hook's implementation takes the arguments that it wants; a driver's method is called with all of them.
        found += _lost_parameters(
            place, method["parameters"], fresh["parameters"], may_grow=not contract or where.endswith("HookSpecs")
        )
        if fresh["returns"] != method["returns"]:
            found.append(f"{place} returned {method['returns']} and returns {fresh['returns']}")
        if fresh.get("abstract") and not method.get("abstract"):
            found.append(f"{place} has become abstract")
        found += _shorter(place, method.get("deadline"), fresh.get("deadline"))
    if contract:
        found += [f"{where}.{name} is new and abstract" for name in now.keys() - before.keys() if now[name].get("abstract")]
    return found


def _lost_parameters(where: str, old: list[Entry], new: list[Entry], *, may_grow: bool) -> list[str]:
    if new[: len(old)] != old:
        return [f"{where}: its parameters were {_names(old)} and are {_names(new)}, or their types changed"]
    more = new[len(old) :]
    if more and (not may_grow or (any(one["required"] for one in more) and not where.startswith("wharfie.spi.hooks."))):
        return [f"{where} has new parameters: {_names(more)}"]
    return []


def _names(parameters: list[Entry]) -> str:
    return "(" + ", ".join(one["name"] for one in parameters) + ")"


def _shorter(where: str, old: Mapping[str, float | None] | None, new: Mapping[str, float | None] | None) -> list[str]:
    found = []
    for limit in ("total", "idle"):
        before, now = (old or {}).get(limit), (new or {}).get(limit)
        if now is not None and (before is None or now < before) and old is not None:
            found.append(f"{where}: its deadline ({limit}) was {before or 'none'} and is {now:g} s")
    return found


def main() -> None:
    """Write the dump."""
    DUMP.parent.mkdir(exist_ok=True)
    DUMP.write_text(json.dumps(dump(), indent=1) + "\n")
    kinds = len(CONTRACTS)
    print(f"{DUMP}: {kinds} contracts, version {SPI_VERSION}")


if __name__ == "__main__":
    main()
