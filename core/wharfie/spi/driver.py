"""What every driver has in common: its life, what it gets from the core, and how long its calls may take.

A driver is a class named by an entry point in the group of its kind (`wharfie.volume`, `wharfie.network`, …). The core
finds it by that name, imports it on first use, checks it, and keeps one instance for the daemon's life:

    inventory → import → settings validated → constructed → check → open → reconcile → calls → close

- Calls come from worker threads, several at once; the core never has two in flight for one object unless it forgot
  the first one in a crash.
- No method waits for the outside world's pleasure. What may take for ever is a file descriptor or an event, therefore
  every method has a deadline (`deadline`), and a call that outlives it fails for the caller while its late result is
  dropped.
- The daemon may be killed between any two lines. After each start `reconcile` of the stateful kinds is told what is
  wanted; a driver makes that so and removes what is its own and no longer wanted.
- Raise the errors of `wharfie.spi.errors`; anything else becomes `DriverError` (500), an `OSError` by its number.
"""

from __future__ import annotations

import enum
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, TypeVar

if TYPE_CHECKING:
    import logging  # its at-fork hooks would cost every shim half a megabyte of its own

C = TypeVar("C", bound=enum.StrEnum)
F = TypeVar("F", bound=Callable[..., Any])

Strings = Mapping[str, str]
FileDescriptor = Annotated[int, "file descriptor"]
"""A stream crosses the contract as a real descriptor. Who hands it over opened it and closes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """How long a method may take. `total`: seconds from call to return. `idle`: seconds without progress (see
    `wharfie.spi.call.progress`) for methods that move a stream of any length; None means no such limit."""

    total: float | None
    idle: float | None = None


def deadline(total: float | None, *, idle: float | None = None) -> Callable[[F], F]:
    """Mark a contract's method with its deadline. Authors of drivers never use this: it is inherited by name."""

    def mark(method: F) -> F:
        method.__deadline__ = Deadline(total=total, idle=idle)  # type: ignore[attr-defined]  # data beside its method
        return method

    return mark


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What the core found out about the host once, so that drivers need not."""

    kernel: tuple[int, int]
    architecture: str  # OCI's name: "amd64", "arm64", …
    cgroup: Literal["v1", "v2", "hybrid"]
    cpus: int
    memory: int  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverEvent:
    """Base of what a driver tells the core unasked. Each kind derives its own events from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """All that a driver gets from the core. There is no way back into the engine but `emit`."""

    state: Path  # survives a reboot; mode 0700; this driver's alone
    run: Path  # gone after a reboot; mode 0700; this driver's alone
    instance: str  # eight hex digits, stable for this data root: put it into the names of kernel objects
    log: logging.Logger
    host: HostFacts
    emit: Callable[[DriverEvent], None] = field(repr=False)  # never blocks, from any thread


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a driver cannot serve on this host, and the command or step that mends it."""

    what: str  # "overlay is not in /proc/filesystems"
    fix: str  # "modprobe overlay"
    fatal: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """An object that `reconcile` could not bring back. The core keeps it away from use and shows the reason."""

    object: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Space taken by one object: bytes on disk and number of inodes."""

    size: int
    inodes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerFacts:
    """What a driver may know of a container: for names, tags and log lines only, never for decisions."""

    id: str
    name: str  # without the leading slash
    hostname: str = ""
    image: str = ""  # as the user wrote it
    image_id: str = ""
    command: tuple[str, ...] = ()
    created: str = ""  # RFC 3339
    labels: Strings = field(default_factory=dict)
    env: tuple[str, ...] = ()
    folder: Path | None = None  # the container's own folder in the data root, for logs


class Driver(ABC, Generic[C]):
    """Base of every driver contract. `C` is the kind's enumeration of optional abilities.

    Derive from the contract of one kind, never from this class or from another driver.
    """

    kind: ClassVar[str]
    """Set by the contract: "volume", "network", …"""
    name: ClassVar[str]
    """Equals the entry point's name, and the name that users type."""
    spi: ClassVar[str]
    """The version of these contracts that the author read, for example "1.0"."""
    settings: ClassVar[str] = ""
    """`package.module:Model` of a pydantic model for this driver's part of daemon.json; empty: it takes no settings."""

    def __init__(self, context: Context, settings: Any) -> None:  # a driver may need nothing
        """Keep what is needed. No side effects here: nothing is opened before `open`.

        `settings` is an instance of the model that `settings` names, or None.
        """

    def capabilities(self) -> frozenset[C]:
        """The optional abilities that this instance has here. Fixed between `open` and `close`."""
        return frozenset()

    @deadline(2)
    def check(self) -> Sequence[Problem]:
        """What stands in the way on this host. Called before `open`; has no side effects; may be repeated."""
        return ()

    @deadline(30)
    def open(self) -> None:  # a driver may need nothing
        """Begin to serve. Meets whatever a killed predecessor left; may not fail because of one broken object."""

    @deadline(10)
    def close(self) -> None:
        """End threads and handles. Kernel objects in use stay: containers outlive the daemon."""

    @deadline(2)
    def probe(self) -> None:
        """Raise if this driver could not serve a call now. Asked when its circuit is open, and by `doctor`."""

    @deadline(5)
    def status(self) -> Sequence[tuple[str, str]]:
        """Rows for `docker info`."""
        return ()
