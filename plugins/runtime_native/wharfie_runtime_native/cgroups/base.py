"""Control groups: one interface over version 1, version 2 and hosts that have both. Reading is `wharfie.shim.cgroups`."""

from __future__ import annotations

import errno
import os
import signal
import time
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Final

from wharfie.shim.cgroups import GroupReader, below
from wharfie.spi.errors import Conflict, DriverError, WharfieError

_DELETE_SECONDS: Final = 15.0  # processes that were killed leave their group only when the kernel is through with them
_EMPTY_SECONDS: Final = 1.0  # as above, of processes that were dead before


class Cgroup(GroupReader):
    """One container's control group. It may not be there yet, or not any more."""

    @abstractmethod
    def create(self) -> None:
        """Make the group; one that is there (of a container that was killed half-way) is taken over when it is empty.

        Errors: Conflict (processes are in it), DriverError.
        """

    @abstractmethod
    def apply(self, resources: Mapping[str, Any]) -> None:
        """Set limits (OCI runtime-spec, config-linux.md "Control groups"). What is not mentioned stays.

        Errors: InvalidArgument with the file and the kernel's word.
        """

    def open_for_fork(self) -> int:
        """A descriptor of the group for `clone3_into_cgroup`, or -1 where a process can only `join` it."""
        return -1

    @abstractmethod
    def join(self, *, beside: int = -1) -> None:
        """Move the calling process, which has one thread, into the group; nothing if it is there.

        `beside`: a pidfd of a process of the container. Its group is joined when the container's own takes no processes
        because groups were made below it, as an init such as systemd does.
        """

    @abstractmethod
    def freeze(self) -> None:
        """Stop every process of the group, and wait until the last one has."""

    @abstractmethod
    def freezer(self) -> str:
        """The folder whose control file `freeze` writes to. Errors: InvalidArgument (this host has none)."""

    @abstractmethod
    def thaw(self) -> None:
        """Let them go on."""

    @abstractmethod
    def kill(self) -> None:
        """Send SIGKILL to every process, also to one that is being forked."""

    def kill_each(self) -> None:
        """SIGKILL to the processes that are there now."""
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def remove_empty(self) -> None:
        """Remove the group if nobody is in it, else leave it alone: the processes are somebody else's."""
        end = time.monotonic() + _EMPTY_SECONDS
        while [directory for directory in self.directories().values() if not remove_tree(directory)]:
            if time.monotonic() > end:
                return
            time.sleep(0.01)

    def delete(self) -> None:
        """End what is left and remove the group with all groups below. Succeeds when it is not there.

        Errors: DriverError (processes that cannot end, as in uninterruptible sleep).
        """
        if not any(os.path.exists(directory) for directory in self.directories().values()):
            return
        end, pause = time.monotonic() + _DELETE_SECONDS, 0.001
        while True:
            if self.pids():
                self.kill()
            left = [directory for directory in self.directories().values() if not remove_tree(directory)]
            if not left:
                return
            if time.monotonic() > end:
                raise DriverError(f"cgroup {left[0]} cannot be removed: processes {self.pids()} do not end")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)


def make(directory: str) -> None:
    """Make a group; one that is there is taken over if nothing is in it. Errors: Conflict, DriverError."""
    try:
        try:
            os.mkdir(directory, 0o755)
        except FileNotFoundError:
            os.makedirs(directory, 0o755, exist_ok=True)
        except FileExistsError:
            # The caller may be in another pid namespace, where it cannot see whose processes these are.
            if not remove_tree(directory):
                raise Conflict(f"cgroup {directory} is in use by another container's processes") from None
            os.makedirs(directory, 0o755, exist_ok=True)
    except OSError as error:
        raise DriverError(f"cannot make cgroup {directory}: {os.strerror(error.errno or 0).lower()}") from error


def remove_tree(directory: str) -> bool:
    """Remove a group and those below it; False while something is in it."""
    try:
        os.rmdir(directory)
        return True
    except OSError:
        folders = below(directory)
    for folder in folders:
        try:
            os.rmdir(folder)
        except OSError as error:
            if error.errno == errno.ENOENT:
                continue
            if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
                return False
            raise DriverError(f"cannot remove cgroup {folder}: {os.strerror(error.errno or 0).lower()}") from error
    return True


def error_number(error: WharfieError) -> int:
    """The errno behind an error of `wharfie.shim.cgroups.write`, 0 when there is none."""
    cause = error.__cause__
    return cause.errno or 0 if isinstance(cause, OSError) else 0


def rdma_line(device: str, limits: Mapping[str, Any]) -> str:
    """A line of rdma.max for one device of `linux.resources.rdma`; both versions have the same file."""
    words = (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))
    return " ".join([device, *(f"{word}={limits[key]}" for key, word in words if limits.get(key) is not None)])
