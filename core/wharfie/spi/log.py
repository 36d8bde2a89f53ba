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
    write_lines  many short lines at once, for sinks that have a quick way
    run          neighbouring entries of one moment, for readers that have a quick way
    open_reader  the entries that were written, and those that will be
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, runtime_checkable

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
class LogRun:
    """Neighbouring entries of one stream, one moment and the same attributes: what one read of the container's output gave.

    `data`: whole lines, each an entry, or one piece of a line that is longer than an entry may be.
    """

    stream: Stream
    data: bytes
    time_ns: int
    attributes: Strings = field(default_factory=dict)

    def entries(self) -> Sequence[bytes]:
        """What `LogEntry.data` is of each."""
        lines = self.data.split(b"\n")
        rest = lines.pop()
        entries = [line + b"\n" for line in lines]
        return [*entries, rest] if rest or not entries else entries


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

    def write_lines(self, stream: Stream, lines: bytes, time_ns: int) -> None:
        """Record whole lines that were read at once, none of them longer than LINE_LIMIT: the same as `write` for each,
        which is what it does unless a sink has a quicker way. Raises as `write`, when all lines were tried."""
        failure: Exception | None = None
        start, view = 0, memoryview(lines)
        while start < len(lines):
            end = lines.index(b"\n", start) + 1
            try:
                self.write(stream, view[start:end], time_ns, False)
            except Exception as error:  # noqa: BLE001  # whatever it is: the next line is worth a try
                failure = error
            start = end
        if failure is not None:
            raise failure

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


@runtime_checkable
class RunReader(LogReader, Protocol):
    """What a reader may offer beyond `LogReader`: a log of millions of lines is read many times faster by runs."""

    def read_runs(self) -> Sequence[LogRun]:
        """The next entries in order, about a quarter of a megabyte of them; empty: nothing now. Never mixed with `read`."""


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
