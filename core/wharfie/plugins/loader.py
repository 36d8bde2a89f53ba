"""One driver class: what the metadata says is checked first, then it is imported, then the class itself is checked.

Everything from `import_driver` on runs foreign code, so it runs in a worker (`wharfie.plugins.supervisor`).
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from typing import Any, TypeVar

from packaging.requirements import InvalidRequirement, Requirement
from stevedore import DriverManager

from wharfie.plugins.contract import methods
from wharfie.plugins.failure import describe
from wharfie.plugins.inventory import Entry
from wharfie.plugins.states import Refusal, State
from wharfie.spi import SPI_VERSION
from wharfie.spi.driver import Driver

D = TypeVar("D", bound=Driver[Any])

_OURS: Mapping[tuple[str, str], str] = {
    ("storage", "overlay2"): "wharfie-storage-overlay",
    ("network", "bridge"): "wharfie-net-bridge",
    ("network", "host"): "wharfie-net-host",
    ("network", "null"): "wharfie-net-host",
    ("network", "macvlan"): "wharfie-net-macvlan",
    ("network", "ipvlan"): "wharfie-net-macvlan",
    ("ipam", "default"): "wharfie-ipam-default",
    ("volume", "local"): "wharfie-volume-local",
    ("runtime", "native"): "wharfie-runtime-native",
    ("runtime", "runc"): "wharfie-runtime-oci",
    ("runtime", "crun"): "wharfie-runtime-oci",
    ("runtime", "runsc"): "wharfie-runtime-oci",
    ("registry", "oci"): "wharfie-registry-oci",
    ("registry", "plain"): "wharfie-registry-plain",
    ("log", "json-file"): "wharfie-log-files",
    ("log", "local"): "wharfie-log-files",
    ("log", "none"): "wharfie-log-files",
    ("log", "syslog"): "wharfie-log-syslog",
    ("log", "journald"): "wharfie-log-journald",
    ("authz", "policy"): "wharfie-authz-policy",
    ("volume", "loop"): "wharfie-volume-loop",
    ("storage", "vfs"): "wharfie-storage-vfs",
    ("storage", "btrfs"): "wharfie-storage-btrfs",
    ("ipam", "reserved"): "wharfie-ipam-reserved",
}
"""Where this project's own drivers are, for the message of a core that stands alone."""


def choose(kind: str, name: str, found: Sequence[Entry], disabled: frozenset[str], core_version: str) -> Entry:
    """The one entry that may be imported, by metadata alone. `found` is not empty. Raises Refusal."""
    key = name if kind == "hook" else f"{kind}.{name}"
    entry = found[0]
    if key in disabled:
        raise Refusal(
            State.DISABLED,
            f"{entry.title} is disabled",
            f'Remove "{key}" from "disabled-plugins" in daemon.json and restart the daemon',
        )
    if len(found) > 1:
        sources = " and ".join(sorted(f"{one.distribution} {one.version}" for one in found))
        raise Refusal(
            State.DUPLICATE,
            f"{entry.title.partition(' (')[0]} is brought by {sources}, so it is not clear which one is meant",
            f"Uninstall one of them: pip uninstall {found[-1].distribution}",
        )
    _admit_core(entry, core_version)
    return entry


def _admit_core(entry: Entry, core_version: str) -> None:
    if not entry.requirement:
        return
    try:
        admitted = Requirement(entry.requirement).specifier.contains(core_version, prereleases=True)
    except InvalidRequirement:
        admitted = False
    if not admitted:
        raise Refusal(
            State.INCOMPATIBLE,
            f"{entry.title} was written for another core: it asks for {entry.requirement}, this is wharfie {core_version}",
            f"Install a version of it that fits: pip install --upgrade {entry.distribution}",
        )


def absent(kind: str, name: str, known: Sequence[str]) -> Refusal:
    """Nobody offers this name: the names that exist, the nearest one, and how to get it."""
    near = difflib.get_close_matches(name, known, n=1)
    ours = _OURS.get((kind, name))
    group = f'an entry point "{name}" in the group wharfie.{kind}'
    install = f"pip install {ours}" if ours else f"pip install wharfie-NAME (the distribution with {group})"
    return Refusal(
        State.ABSENT,
        # The beginning is Docker's own sentence for it.
        f'plugin "{name}" not found: there is no {kind} driver of this name, installed are: {", ".join(known) or "none"}',
        (f'Did you mean "{near[0]}"? ' if near else "") + f"To install it: {install}",
    )


class _OneEntry(DriverManager[Any]):
    """stevedore's loading of one name, with the entry that the inventory has found instead of its own cached list."""

    def __init__(self, point: EntryPoint) -> None:
        self._point = point
        super().__init__(namespace=point.group, name=point.name, invoke_on_load=False)

    def list_entry_points(self) -> list[EntryPoint]:
        return [self._point]


def import_driver(entry: Entry, contract: type[D]) -> type[D]:
    """Import the entry's class and check it. Raises Refusal (broken, incompatible)."""
    return check_class(entry, contract, import_object(entry))


def import_object(entry: Entry) -> Any:
    """Import what the entry names, whatever it is. Raises Refusal (broken)."""
    if entry.point is None:
        raise _broken(entry, "has no entry point to import")
    try:
        return _OneEntry(entry.point).driver
    except BaseException as error:  # a module may do anything while it is imported, also sys.exit
        raise Refusal(
            State.BROKEN,
            f"{entry.title} cannot be imported: {entry.value}: {describe(error)}",
            _import_remedy(entry, error),
        ) from error


def _import_remedy(entry: Entry, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == entry.value.partition(":")[0].partition(".")[0]:
        return (
            f"If {entry.distribution} was installed while the daemon ran, restart the daemon; otherwise install it again: "
            f"pip install --force-reinstall {entry.distribution}"
        )
    if isinstance(error, ModuleNotFoundError):
        return f"A dependency is missing; install it with its dependencies: pip install {entry.distribution}"
    return f"The daemon's log has the traceback; ask the authors of {entry.distribution}, or install another version"


def check_class(entry: Entry, contract: type[D], found: Any) -> type[D]:
    """Is `found` a driver of this kind, complete, of this name, and written for these contracts? Raises Refusal."""
    if not isinstance(found, type) or not issubclass(found, contract):
        raise _broken(entry, f"names {entry.value}, which is no {contract.__name__}")
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        raise _broken(entry, f"lacks methods of its contract: {', '.join(missing)}")
    if getattr(found, "name", None) != entry.name:
        raise _broken(entry, f"calls itself {getattr(found, 'name', None)!r}, but its entry point says {entry.name!r}")
    _check_spi(entry, getattr(found, "spi", None))
    for name in methods(contract):
        method = getattr(found, name, None)
        if inspect.iscoroutinefunction(method) or inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
            raise _broken(entry, f"has {name} as a coroutine or generator; the methods of a driver are plain functions")
    return found


def _check_spi(entry: Entry, spi: object) -> None:
    offered = _version(SPI_VERSION)
    wanted = _version(spi)
    if wanted is None or offered is None:
        raise Refusal(
            State.INCOMPATIBLE,
            f"{entry.title} does not say which contract it was written for: spi is {spi!r}",
            f'Its class needs spi = "{SPI_VERSION}"; ask the authors of {entry.distribution}',
        )
    if wanted[0] != offered[0] or wanted[1] > offered[1]:
        newer = wanted > offered
        raise Refusal(
            State.INCOMPATIBLE,
            f"{entry.title} was written for contract {spi}, and this core offers {SPI_VERSION}",
            "Upgrade the core: pip install --upgrade wharfie"
            if newer
            else f"Upgrade it: pip install --upgrade {entry.distribution}",
        )


def _version(text: object) -> tuple[int, int] | None:
    if not isinstance(text, str):
        return None
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None


def _broken(entry: Entry, what: str) -> Refusal:
    return Refusal(
        State.BROKEN, f"{entry.title} {what}", f"Ask the authors of {entry.distribution}, or install another version of it"
    )
