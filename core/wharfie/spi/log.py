"""Container logs: where output goes, and how it is read back.

The model
    A log driver has two halves. The *driver* runs in the daemon: it validates the options of a container and reads its
    log. The *sink* runs in the shim beside the container: it is given each piece of output and writes it. The shim is a
    bare interpreter, so a sink's module imports nothing but the standard library and this module, at import or later. It
    may have a function `rehearse()`, which the process that shims are forked from calls a few times: let it write a line
    that goes nowhere, and each shim is some tens of kilobytes smaller.

The words
    plan         turn the user's `--log-opt`s into the sink's options, or refuse them
    write        one piece of output, at most 16 KiB, a line's end included when it has one
    open_reader  the entries that were written, and those that will be
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from wharfie.spi.driver import ContainerFacts, Driver, Strings, deadline
from wharfie.spi.errors import Unsupported

Stream = Literal["stdout", "stderr"]

LINE_LIMIT = 16 * 1024
"""A longer line reaches the sink in pieces of this size, all but the last marked `partial` (Docker's limit)."""


class LogCapability(enum.StrEnum):
    """What a log driver may offer beyond the contract."""

    READ = "read"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One piece of output. `data` keeps its line end; a partial piece has none. `time_ns`: since the epoch."""

    stream: Stream
    data: bytes
    time_ns: int
    attributes: Strings = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """`tail`: how many of the last entries, -1 for all. `since` and `until` in nanoseconds, 0 for no bound."""

    tail: int = -1
    since_ns: int = 0
    until_ns: int = 0
    follow: bool = False


class LogSink(ABC):
    """Runs in the shim, one for each container, called by one thread. Constructed with the options that `plan` gave."""

    def __init__(self, options: Strings) -> None:  # noqa: B027  # a sink may need nothing
        """Open what is needed. May raise OSError: the container then does not start."""

    @abstractmethod
    def write(self, stream: Stream, data: memoryview, time_ns: int, partial: bool) -> None:
        """Record one piece. `data` is only valid during the call. An OSError is counted; the container goes on."""

    def flush(self) -> None:  # noqa: B027  # a sink may have no buffer
        """All pieces read at once have been written: make them visible to readers."""

    @abstractmethod
    def close(self) -> None:
        """The container has ended and all its output was written."""


class LogReader(Protocol):
    """Reads without ever waiting. Used by one caller at a time."""

    def fileno(self) -> int:
        """A descriptor that becomes readable when there may be more to read (inotify, a socket)."""

    def read(self, limit: int) -> Sequence[LogEntry]:
        """At most `limit` entries in order; empty: nothing now."""

    def close(self) -> None:
        """End the handles. May be repeated."""


class LogDriver(Driver[LogCapability]):
    """A destination of container output."""

    kind: ClassVar[str] = "log"
    sink: ClassVar[str]
    """`package.module:Class` of the LogSink."""

    @abstractmethod
    @deadline(5)
    def plan(self, container: ContainerFacts, options: Strings) -> Strings:
        """Validate the container's options and turn them into the sink's. Errors: InvalidArgument naming the option."""

    @deadline(10)
    def open_reader(self, container: ContainerFacts, options: Strings, query: LogQuery) -> LogReader:
        """Read a container's log, `options` being what `plan` gave. The reader starts where `query.tail` says (READ)."""
        raise Unsupported("configured logging driver does not support reading")

    @deadline(5)
    def path(self, container: ContainerFacts, options: Strings) -> str:
        """The log's file for `docker inspect`; empty: it has none."""
        return ""

    @abstractmethod
    @deadline(30)
    def remove(self, container: ContainerFacts, options: Strings) -> None:
        """The container is gone: remove its log. Succeeds when there is none."""
