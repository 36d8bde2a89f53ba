"""What a runtime brings to the shim: how a container is made, as opposed to how it is looked after.

The shim owns the container's streams, terminal, log, exit status, exec sessions, attached clients and name server, and it
mounts the root; all that is the same for every runtime. An *engine* makes the processes: `wharfie_runtime_native` does it
with system calls, an OCI binary such as runc would do it by a command line. It runs inside the shim, a bare
single-threaded interpreter: standard library and `wharfie.spi` value types only, imported before the container's files
are touched.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

from wharfie.spi.errors import Unsupported


class Streams(NamedTuple):
    """Descriptors for a process: three pipe ends (or /dev/null), or with `terminal` one console socket's end.

    With a terminal the engine opens a pseudo terminal in the container's devpts, makes it the process's controlling
    terminal, gives it `size` and sends the master's descriptor through `console` (SCM_RIGHTS), as OCI runtimes do (runc,
    docs/terminals.md).
    """

    stdin: int = -1
    stdout: int = -1
    stderr: int = -1
    console: int = -1
    size: tuple[int, int] | None = None  # rows, columns


class Engine(ABC):
    """One container in one shim. The shim is the parent (or subreaper) of every process that the engine makes.

    A container is made by a child of the shim, the *maker*, which then ends, so that the shim stays as small as it was:
    what `create` does to an object of this class is gone afterwards. The shim makes an object of its own when it first
    needs one and calls its `adopt`; descriptors that `create` has left open come along as `keep` named them.

    Like every Python process the shim ignores SIGPIPE, and has a handler for SIGCHLD: an engine puts signals back to their
    defaults before it executes a program, and gives it no descriptor but the three streams, which its user may reopen.

    Errors are those of `wharfie.spi.errors`, with the messages that `wharfie.spi.runtime` asks for; OSError is mapped.
    """

    def __init__(self, id: str, bundle: str, spec: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """`spec`: the bundle's config.json with the process's user resolved. `options`: the driver's own settings."""
        self.id = id
        self.bundle = bundle
        self.spec = spec
        self.options = options

    @abstractmethod
    def create(self, rootfs: Path, streams: Streams) -> int:
        """In the maker: make namespaces, cgroup and mounts on the mounted `rootfs`, up to the moment before execve; the pid
        of the container's first process, which has to outlive the maker. A failure leaves nothing behind."""

    def keep(self) -> Sequence[int]:
        """In the maker, after `create`: descriptors that the shim needs. They are duplicated."""
        return ()

    def adopt(self, pid: int, kept: Sequence[int]) -> None:  # noqa: B027  # an engine may need nothing
        """In the shim, on a new object, before anything but `delete`: what `create` returned, and what `keep` named."""

    @abstractmethod
    def start(self) -> None:
        """Execute. Raises what execve said. The shim keeps what was written to the log meanwhile."""

    @abstractmethod
    def exec(self, process: Mapping[str, Any], streams: Streams) -> int:
        """Execute a further process in the container's namespaces and cgroup; its pid, a child of the shim."""

    def signal(self, pid: int, signal: int) -> None:
        """Send a signal to the container's first process or an exec's, by the pid that `create` or `exec` gave. An engine
        whose process on the host is not the program itself overrides it. Errors: ProcessLookupError."""
        os.kill(pid, signal)

    @abstractmethod
    def signal_all(self, signal: int) -> None:
        """Send a signal to every process of the container."""

    @abstractmethod
    def pause(self) -> None:
        """Freeze."""

    @abstractmethod
    def resume(self) -> None:
        """Thaw."""

    @abstractmethod
    def update(self, resources: Mapping[str, Any]) -> None:
        """Change limits (OCI runtime-spec, "Control groups")."""

    @abstractmethod
    def stats(self) -> Mapping[str, Any]:
        """Counters as `RuntimeDriver.stats` gives them."""

    @abstractmethod
    def pids(self) -> Sequence[int]:
        """Host pids of all processes in the container."""

    @abstractmethod
    def oom_fd(self) -> int:
        """A descriptor that becomes readable when the kernel has killed for memory (eventfd on v1, inotify on v2), or
        -1. The shim asks `oom_kills` when it does."""

    @abstractmethod
    def oom_killed(self) -> bool:
        """Whether the kernel has killed a process of this container for its memory limit so far."""

    def oom_kills(self) -> int:
        """How many processes of this container the kernel has killed for its memory limit so far. An engine that cannot
        count them says 1 for any."""
        return int(self.oom_killed())

    @abstractmethod
    def delete(self) -> None:
        """Remove the cgroup, ending whatever process is left in it. May be repeated, also by a shim that never saw
        `create`: after a killed shim another one cleans up."""

    # What an engine may offer beyond that: `RuntimeCapability.CHECKPOINT` of its driver

    def checkpoint(self, folder: str, pipes: Mapping[int, int]) -> int:
        """Begin to write the container, which is frozen (`pause`) and stays so, into the empty `folder`; the pid of the
        shim's child that does it. `checkpointed` follows when that has ended. `pipes`: the shim's, inode numbers by the
        number of the descriptor that the first process was given for each.

        Errors: Unsupported, and what stands in the way.
        """
        raise Unsupported(f"the runtime of container {self.id} cannot write checkpoints")

    def checkpointed(self, folder: str, code: int) -> None:
        """The child has ended with this exit code. Errors: why `folder` is not a whole checkpoint."""
        raise Unsupported(f"the runtime of container {self.id} cannot write checkpoints")

    def restore(self, folder: str) -> int:
        """Instead of `start`: begin to bring the processes of a checkpoint back, in what `create` has made; the pid of the
        shim's child that does it. `restored` follows when that has ended. Errors: as of `checkpoint`."""
        raise Unsupported(f"the runtime of container {self.id} cannot restore checkpoints")

    def restored(self, folder: str, code: int) -> int:
        """The child has ended with this exit code: the pid of what is the container's first process from now on, a child of
        the shim. The one that `create` made is the shim's to end. Errors: why there is none."""
        raise Unsupported(f"the runtime of container {self.id} cannot restore checkpoints")
