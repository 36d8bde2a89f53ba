"""Runtimes: processes in containers.

The model
    A container is made from an OCI *bundle*, a folder with config.json (OCI runtime-spec), and from mount descriptions
    that make up its root. `create` ends with the namespaces there and the process not executed, so that networks can join;
    `start` executes it. Further processes come by `exec`. Every end (of the container, of an exec, out of memory) is an
    event through `Context.emit`; nothing waits. A missed event is found by `containers`.

    A container outlives the daemon: with SURVIVES_DAEMON its output, exit status and attached clients are in the hands of a
    process beside it (the shim), and a new daemon finds all that by `containers`.

An example
    create("3f…", bundle, mounts, io, preparation) → Process(pid=4711)
    attach("3f…", "", client, AttachRequest(stdout=True));  start("3f…")  … Exited(id="3f…", exit=Exit(code=0))
    delete("3f…")
"""

from __future__ import annotations

import enum
import socket
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from wharfie.spi.driver import Driver, DriverEvent, Strings, deadline
from wharfie.spi.errors import Unsupported
from wharfie.spi.storage import Mount


class RuntimeCapability(enum.StrEnum):
    """What a runtime driver may offer beyond the contract."""

    PAUSE = "pause"
    UPDATE = "update"
    STATS = "stats"
    CHECKPOINT = "checkpoint"
    TOP = "top"
    SURVIVES_DAEMON = "survives-daemon"
    RESOLVER = "resolver"  # answers DNS in the container's network namespace (Preparation.resolver)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogTarget:
    """A log sink to run beside the container: `package.module:Class` and its options."""

    sink: str
    options: Strings = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Io:
    """A process's streams. `stdin`: kept open for attached clients. `stdin_once`: closed when the first one leaves."""

    terminal: bool = False
    stdin: bool = False
    stdin_once: bool = False
    size: tuple[int, int] | None = None  # rows, columns
    log: LogTarget | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyUp:
    """Copy what the root has at `destination` (absolute, in the container) into the empty folder `folder`, owner and mode
    included. A folder that is not empty is left as it is. Links in the root never lead outside of it."""

    destination: str
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """What is done on the mounted root before the process is made.

    `user` is Docker's USER[:GROUP], resolved in the root's passwd and group files, with `groups` added to the process's
    supplementary ones; HOME comes from there too unless the environment has it. `resolver`: a JSON file of names, kept by
    the core, from which DNS is answered at 127.0.0.11 in the container's network namespace (RESOLVER); the file may be
    replaced at any time.
    """

    user: str = ""
    groups: tuple[str, ...] = ()
    copy_up: tuple[CopyUp, ...] = ()
    files: tuple[str, ...] = ()  # empty files and folders ("/dev/shm/") that must exist in the root as mount points
    resolver: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process that was made. `netns` can be opened for setns(2)."""

    pid: int
    netns: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a process ended. `code`: 0-255, 128+n for a signal. `at_ns`: wall clock since the epoch."""

    code: int
    at_ns: int
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerState:
    """A container as the runtime finds it. `pid` 0 when there is no process."""

    id: str
    status: Literal["created", "running", "paused", "stopped"]
    pid: int
    exit: Exit | None = None
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachRequest:
    """What an attached client wants. `framed`: Docker's 8-byte heads before stdout and stderr (not with a terminal).
    `initial`: bytes that the client sent with its request. `detach_keys`: as Docker writes them ("ctrl-p,ctrl-q")."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    framed: bool = True
    initial: bytes = b""
    detach_keys: str = ""
    label: str = ""  # handed back in Detached


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitReply:
    """What to write to a client that waits for a container's end: `before`, the exit code in decimal, `after`."""

    before: bytes
    after: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited(DriverEvent):
    """The container's process has ended and all its output is in the log."""

    id: str
    exit: Exit


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecExited(DriverEvent):
    id: str
    exec_id: str
    exit: Exit


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfMemory(DriverEvent):
    """The kernel killed a process of the container for its memory limit."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Detached(DriverEvent):
    """A client left by the detach keys; the container goes on."""

    id: str
    exec_id: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost(DriverEvent):
    """The process beside the container died; the container was ended with it and its exit status is unknown (137)."""

    id: str


class RuntimeDriver(Driver[RuntimeCapability]):
    """A maker of containers from OCI bundles."""

    kind: ClassVar[str] = "runtime"

    @abstractmethod
    @deadline(30)
    def create(self, id: str, bundle: Path, rootfs: tuple[Mount, ...], io: Io, preparation: Preparation) -> Process:
        """Make the container of `bundle` up to the point where its process would be executed.

        `root.path` of the configuration is a name within the bundle on which `rootfs` is mounted, in a mount namespace of
        the container's own. A failure leaves nothing. Errors: InvalidArgument (the message is shown to the user as it is;
        for a missing program it is `exec: "x": executable file not found in $PATH` or ends with `no such file or
        directory`, for one that cannot be executed with `permission denied`), Conflict (the id exists).
        """

    @abstractmethod
    @deadline(30)
    def start(self, id: str) -> None:
        """Execute the process. Errors: NotFound, Conflict (not in state created), InvalidArgument as for `create`."""

    @abstractmethod
    @deadline(30)
    def exec(self, id: str, exec_id: str, process: Mapping[str, Any], io: Io, *, user: str = "") -> None:
        """Prepare a further process (`process`: OCI runtime-spec, config.md "Process"); `exec_start` executes it.

        Clients attach in between, so none of the output is missed. A daemon that dies in between has no successor that
        knows of it: it is gone then, and its clients' connections end.
        """

    @abstractmethod
    @deadline(30)
    def exec_start(self, id: str, exec_id: str) -> Process:
        """Execute a prepared process. Errors as for `create`; after an error the exec is gone."""

    @abstractmethod
    @deadline(5)
    def exec_delete(self, id: str, exec_id: str) -> None:
        """The core has recorded the end of an exec: its clients' connections end now, not before, so that who sees the end
        of the stream finds the exit code. Succeeds when it is not there."""

    @abstractmethod
    @deadline(5)
    def signal(self, id: str, signal: int, *, exec_id: str = "", everyone: bool = False) -> None:
        """Send a signal to the container's first process, to an exec's, or to all. Errors: NotFound, Conflict (ended)."""

    @abstractmethod
    @deadline(5)
    def attach(self, id: str, exec_id: str, client: socket.socket, request: AttachRequest) -> None:
        """Hand a client's connection over; returns at once. `client` is duplicated: the caller closes its own copy.

        `exec_id` empty: the container itself. The stream ends when the process's output does. The other side's
        half-close is the end of stdin.
        """

    @deadline(5)
    def notify_exit(self, id: str, client: socket.socket, reply: ExitReply) -> None:
        """Hand over a client that waits for the container's end; it is answered after `delete`, or at once when the
        container ends while no daemon is there (SURVIVES_DAEMON). `client` is duplicated."""
        raise Unsupported(f'runtime driver "{self.name}" cannot answer for the daemon')

    @abstractmethod
    @deadline(5)
    def close_stdin(self, id: str, exec_id: str) -> None:
        """No more input will come. May be repeated."""

    @abstractmethod
    @deadline(5)
    def resize(self, id: str, exec_id: str, rows: int, columns: int) -> None:
        """Change a terminal's size. Errors: NotFound, Conflict (no terminal)."""

    @abstractmethod
    @deadline(5)
    def state(self, id: str) -> ContainerState:
        """Errors: NotFound."""

    @abstractmethod
    @deadline(10)
    def containers(self) -> Sequence[ContainerState]:
        """All containers that are there, of this or an earlier daemon on the same folders."""

    @abstractmethod
    @deadline(30)
    def delete(self, id: str, *, force: bool = False) -> None:
        """Remove a container that has ended, with its namespaces, mounts and cgroup; `force` ends it first.

        Succeeds when it is not there. Errors: Conflict (running, without force).
        """

    @deadline(10)
    def pause(self, id: str) -> None:
        """Freeze all processes (PAUSE)."""
        raise Unsupported(f'runtime driver "{self.name}" cannot pause')

    @deadline(10)
    def resume(self, id: str) -> None:
        """Thaw all processes (PAUSE)."""
        raise Unsupported(f'runtime driver "{self.name}" cannot pause')

    @deadline(10)
    def update(self, id: str, resources: Mapping[str, Any]) -> None:
        """Change limits (UPDATE); `resources`: OCI runtime-spec, config-linux.md "Control groups"."""
        raise Unsupported(f'runtime driver "{self.name}" cannot change limits')

    @deadline(5)
    def stats(self, id: str) -> Mapping[str, Any]:
        """Counters of use (STATS): `cpu` {usage_ns, user_ns, system_ns, throttled…}, `memory` {usage, limit, stats},
        `pids` {current, limit}, `blkio` [{major, minor, op, value}]; where control groups of version 1 count it, also `cpu`
        percpu_ns, `memory` max_usage and failcnt, and `blkio_serviced`."""
        raise Unsupported(f'runtime driver "{self.name}" has no statistics')

    @deadline(5)
    def pids(self, id: str) -> Sequence[int]:
        """Host pids of all processes in the container (TOP)."""
        raise Unsupported(f'runtime driver "{self.name}" cannot list processes')

    @deadline(600)
    def checkpoint(self, id: str, folder: Path, *, leave_running: bool = False) -> None:
        """Write the processes with their memory to `folder` (CHECKPOINT), which must not exist and whose parent does; then
        end them, unless `leave_running`.

        `folder` appears when it is whole, a folder of files, and only then are they ended. After an error, or a crash of
        the daemon, there is no such folder and they run on as if nothing had been. The container's files, volumes and
        networks are no part of it.
        Errors: Conflict (not running, processes of execs, `folder` exists), Unsupported (what this host or driver has not
        got, or this container has and no checkpoint can), DriverError.
        """
        raise Unsupported(f'runtime driver "{self.name}" cannot write checkpoints')

    @deadline(600)
    def restore(self, id: str, folder: Path) -> Process:
        """Instead of `start`: let the processes of a checkpoint go on in a container that `create` has made from the same
        configuration (CHECKPOINT). What they write goes to this container's streams, and their end is its end.

        `folder` is only read. After an error there is only `delete`. Errors: as of `checkpoint`, Conflict (not in state
        created), NotFound (no such folder), InvalidArgument (it is no checkpoint of this driver's).
        """
        raise Unsupported(f'runtime driver "{self.name}" cannot restore checkpoints')

    @deadline(5)
    def features(self) -> Mapping[str, Any]:
        """OCI runtime-spec, features.md."""
        return {}
