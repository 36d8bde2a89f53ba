"""Which installed distributions offer which drivers and hooks: read from their metadata, nothing is imported.

stevedore has a list of its own, but it forgets the distribution and never sees an installation made while the process
runs. So the inventory decides what exists, and stevedore only loads (`wharfie.plugins.loader`).
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, distributions, version
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from wharfie.plugins.contract import CONTRACTS

CORE = "wharfie"
HOOK = "hook"
HOOK_GROUP = "wharfie.plugins"

_LOG = logging.getLogger(__name__)
_SETTLED = 2_000_000_000  # nanoseconds
_GROUPS: Mapping[str, str] = {f"wharfie.{kind}": kind for kind in CONTRACTS} | {HOOK_GROUP: HOOK}
_TITLES: Mapping[str, str] = {HOOK: "plugin"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finder:
    """The hook plugin that finds a driver at run time, and what it goes by: its own settings (None: daemon.json has none)
    and the driver's section."""

    plugin: str
    settings: Mapping[str, Any] | None
    section: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry point, and the distribution that brought it."""

    kind: str  # "volume", …, or "hook"
    name: str
    value: str  # "wharfie_acme.driver:AcmeDriver"
    distribution: str
    version: str
    requirement: str = ""  # what the distribution asks of the core, "wharfie<1,>=0.1"; empty: it does not say
    point: EntryPoint | None = field(default=None, repr=False, compare=False)  # None: found by a hook at run time
    finder: Finder | None = field(default=None, repr=False, compare=False)

    @property
    def title(self) -> str:
        """How messages name it: `volume driver "acme" (wharfie-acme 0.3)`."""
        return f'{_TITLES.get(self.kind, self.kind + " driver")} "{self.name}" ({self.distribution} {self.version})'


@dataclass(frozen=True, slots=True)
class _Folder:
    """The distributions of one folder of sys.path: their entries by normalized name."""

    changed: int  # st_mtime_ns; an installation adds a folder `*.dist-info`, which changes it
    settled: bool
    distributions: Mapping[str, tuple[Entry, ...]]


class Inventory:
    """The entries of all installed distributions; reads a folder of `sys.path` again by itself when it has changed."""

    def __init__(self) -> None:
        self._folders: dict[str, _Folder] = {}
        self._path: tuple[str, ...] = ()
        self._entries: Mapping[tuple[str, str], tuple[Entry, ...]] = {}

    def find(self, kind: str, name: str) -> tuple[Entry, ...]:
        """The entries of this kind and name: none, one, or several when distributions contend for the name."""
        return self.entries().get((kind, name), ())

    def names(self, kind: str) -> Sequence[str]:
        """Names of one kind, sorted."""
        return sorted(name for found, name in self.entries() if found == kind)

    def entries(self) -> Mapping[tuple[str, str], tuple[Entry, ...]]:
        """All entries by (kind, name)."""
        path = tuple(sys.path)
        new = path != self._path
        for folder in path:
            seen = self._folders.get(folder)
            changed = _changed(folder)
            if seen is not None and seen.settled and seen.changed == changed:
                continue
            # A folder that changed a moment ago may be in the middle of an installation: look again next time.
            found = _Folder(changed, changed < time.time_ns() - _SETTLED, _read(folder))
            new = new or seen is None or seen.distributions != found.distributions
            self._folders[folder] = found
        if new:
            importlib.invalidate_caches()  # what is new in the metadata must be found by the import, too
            self._path = path
            self._entries = self._merge()
        return self._entries

    def _merge(self) -> Mapping[tuple[str, str], tuple[Entry, ...]]:
        found: dict[tuple[str, str], list[Entry]] = {}
        known: set[str] = set()
        for folder in dict.fromkeys(self._path):
            for name, entries in self._folders[folder].distributions.items():
                if name in known:
                    continue  # a second copy further down sys.path: Python would never import it
                known.add(name)
                for entry in entries:
                    found.setdefault((entry.kind, entry.name), []).append(entry)
        return {key: tuple(entries) for key, entries in found.items()}


@cache
def core_version() -> str:
    """The version of the core that runs, also when another one has been installed since."""
    try:
        return version(CORE)
    except PackageNotFoundError:
        return "0"


def _changed(folder: str) -> int:
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:
        return 0


def _read(folder: str) -> Mapping[str, tuple[Entry, ...]]:
    found: dict[str, tuple[Entry, ...]] = {}
    for distribution in distributions(path=[folder]):
        try:
            name = distribution.metadata["Name"]
            if name:
                found.setdefault(_normalized(name), tuple(_entries_of(distribution, name)))
        except Exception:  # noqa: BLE001  # one damaged distribution must not hide the others
            _LOG.warning("the metadata of %s cannot be read; its drivers are ignored", distribution, exc_info=True)
    return found


def _entries_of(distribution: Distribution, name: str) -> Sequence[Entry]:
    points = [point for point in distribution.entry_points if point.group in _GROUPS]
    if not points:
        return ()
    requirement = _requirement(distribution)
    return [
        Entry(
            kind=_GROUPS[point.group],
            name=point.name,
            value=point.value,
            distribution=name,
            version=distribution.version,
            requirement=requirement,
            point=point,
        )
        for point in points
    ]


def _requirement(distribution: Distribution) -> str:
    for text in distribution.requires or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            # Kept when it is about the core: the loader then refuses the driver and shows the text.
            if re.match(rf"{CORE}(?![\w.-])", text, re.IGNORECASE):
                return text
            continue
        if _normalized(requirement.name) == CORE and (
            requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        ):
            return text
    return ""


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
