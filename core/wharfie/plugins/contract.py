"""The contracts read as data: which kinds there are, how long a method may take, what it must return, what is a removal.

Deadlines are found on the contract by the method's name, never on the driver, so that an override inherits them and
cannot change them.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from wharfie.spi.authz import AuthzDriver
from wharfie.spi.driver import Deadline, Driver
from wharfie.spi.errors import DriverError
from wharfie.spi.ipam import IpamDriver
from wharfie.spi.log import LogDriver
from wharfie.spi.network import NetworkDriver
from wharfie.spi.registry import RegistryDriver
from wharfie.spi.runtime import RuntimeDriver
from wharfie.spi.storage import StorageDriver
from wharfie.spi.volume import VolumeDriver

T = TypeVar("T")

CONTRACTS: Mapping[str, type[Driver[Any]]] = {
    contract.kind: contract
    for contract in (
        StorageDriver,
        NetworkDriver,
        IpamDriver,
        VolumeDriver,
        RuntimeDriver,
        RegistryDriver,
        LogDriver,
        AuthzDriver,
    )
}
"""Kind → contract. The entry-point group of a kind is `wharfie.<kind>`."""

DEFAULT_DEADLINE = Deadline(total=5)
"""For methods that only look at the driver itself and carry no mark (`capabilities`, `spaces`)."""

REMOVALS: Mapping[str, frozenset[str]] = {
    "storage": frozenset({"remove"}),
    "network": frozenset({"delete_network", "leave", "unpublish"}),
    "ipam": frozenset({"release_pool", "release_address"}),
    "volume": frozenset({"remove", "unmount"}),
    "runtime": frozenset({"signal", "delete"}),
    "registry": frozenset(),
    "log": frozenset({"remove"}),
    "authz": frozenset(),
}
"""Methods that end something. They reach a driver even while its circuit is open: refusing them would only leave more
behind. A removal that fails becomes a debt (`wharfie.plugins.debts`)."""

LIFE = frozenset({"close", "probe"})
"""Methods of every kind that pass an open circuit, too."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a contract."""

    name: str
    deadline: Deadline
    returns: tuple[type, ...]  # empty: anything
    always: bool  # passes an open circuit
    gives: bool = True  # has a result; what comes back from one without is dropped


@functools.cache
def methods(contract: type[Driver[Any]]) -> Mapping[str, Method]:
    """All public methods of a contract by name."""
    found = {}
    for name, function in inspect.getmembers(contract, inspect.isfunction):
        if name.startswith("_"):
            continue
        result = _hints(function).get("return", Any)
        found[name] = Method(
            name=name,
            deadline=getattr(function, "__deadline__", DEFAULT_DEADLINE),
            returns=_classes(result),
            gives=result is not type(None),
            always=name in LIFE or name in REMOVALS.get(contract.kind, ()),
        )
    return found


def checked(rule: Method, value: T) -> T:
    """The result of a method, if it is what the contract says; one of another type would fail far from here, where nobody
    knows the driver. Errors: DriverError."""
    if inspect.iscoroutine(value) or inspect.isgenerator(value):
        value.close()
        raise DriverError(f"{rule.name} returned a {type(value).__name__}; the methods of a driver are plain functions")
    if not rule.returns or isinstance(value, rule.returns):
        return value
    expected = " or ".join(one.__name__ for one in rule.returns)
    raise DriverError(f"{rule.name} returned {type(value).__name__}, but its contract says {expected}")


def parameters(contract: type[Driver[Any]], method: str) -> Mapping[str, Any]:
    """Types of a method's parameters by name, without `self`."""
    hints = dict(_hints(getattr(contract, method)))
    hints.pop("return", None)
    return hints


def _hints(function: Callable[..., Any]) -> Mapping[str, Any]:
    return typing.get_type_hints(function)


def _classes(hint: Any) -> tuple[type, ...]:
    """Classes that a result must be an instance of; empty when the annotation is nothing that can be tested."""
    origin = typing.get_origin(hint) or hint
    if origin in (typing.Union, types.UnionType):
        parts = [_classes(part) for part in typing.get_args(hint)]
        return tuple(one for part in parts for one in part) if all(parts) else ()
    # A generator is no Sequence, so a lazy `reconcile` that would do nothing until it is read is caught by this, too.
    # What comes back from a method without a result is dropped, so it may be anything.
    if not isinstance(origin, type) or origin in (object, type(None)) or getattr(origin, "_is_protocol", False):
        return ()
    return (origin,)
