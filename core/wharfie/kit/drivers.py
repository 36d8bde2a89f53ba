"""Where the driver under test comes from: an installed distribution, found and checked as by the daemon, or a function."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from wharfie.kit.rules import NotTried, Violation
from wharfie.plugins.contract import CONTRACTS
from wharfie.plugins.inventory import CORE, Entry, Inventory
from wharfie.plugins.loader import choose, import_driver
from wharfie.plugins.settings import validate
from wharfie.plugins.states import Refusal
from wharfie.spi.driver import Context, Driver, HostFacts

Factory = Callable[[Context], Driver[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A driver under test. `key`: "volume.acme"; empty for one that a function makes, which has no entry either."""

    title: str
    factory: Factory = field(repr=False)
    key: str = ""
    entry: Entry | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def candidate(kind: str, driver: str | Factory, settings: Mapping[str, Any], title: str) -> Candidate:
    """The driver that a contract's class names. Raises Violation when the daemon would not load it."""
    if not isinstance(driver, str):
        return Candidate(title=f"{kind} driver of {title}", factory=driver)
    found, dot, name = driver.partition(".")
    if not dot or found != kind:
        raise Violation(f"driver is {driver!r}; for this contract it must be {kind}.NAME, or a function of a Context")
    entries = Inventory().find(kind, name)
    if not entries:
        raise NotTried(f"no installed distribution has an entry point {name!r} in the group wharfie.{kind}")
    try:
        entry = choose(kind, name, entries, frozenset(), version(CORE))
        cls = import_driver(entry, CONTRACTS[kind])
        model = validate(entry, cls, settings)
    except Refusal as refusal:
        raise Violation(f"the daemon would refuse to load it: {refusal}") from refusal
    return Candidate(
        title=entry.title, key=driver, factory=lambda context: cls(context, model), entry=entry, settings=settings
    )


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def host_facts() -> HostFacts:
    """What the daemon would tell the driver of this host."""
    name = os.uname()
    release = re.match(r"(\d+)\.(\d+)", name.release)
    memory = re.search(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return HostFacts(
        kernel=(int(release[1]), int(release[2])) if release else (0, 0),
        architecture=_ARCHITECTURES.get(name.machine, name.machine),
        cgroup=_cgroup(),
        cpus=len(os.sched_getaffinity(0)),
        memory=int(memory[1]) * 1024 if memory else 0,
    )


def _cgroup() -> Literal["v1", "v2", "hybrid"]:
    kinds = set()
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, *_ = line.split(" ")
        if kind == "cgroup2" and target == "/sys/fs/cgroup":
            return "v2"
        kinds.add(kind)
    if "cgroup" not in kinds:
        return "v2"
    return "hybrid" if "cgroup2" in kinds else "v1"
