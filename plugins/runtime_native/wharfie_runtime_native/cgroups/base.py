"""Control groups: one interface over version 1, version 2 and hosts that have both."""

from __future__ import annotations

import errno
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from wharfie.spi.errors import Conflict, DriverError, InvalidArgument

ROOT: Final = "/sys/fs/cgroup"
_DELETE_SECONDS: Final = 15.0  # processes that were killed leave their group only when the kernel is through with them


class Cgroup(ABC):
    """One container's control group. It may not be there yet, or not any more."""

    def __init__(self, path: str) -> None:
        """`path`: below each hierarchy's root, as in `linux.cgroupsPath`."""
        self.path = clean(path)

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

    @abstractmethod
    def join(self) -> None:
        """Move the calling process into the group."""

    @abstractmethod
    def directories(self) -> Mapping[str, str]:
        """The group's folder in each hierarchy, by the hierarchy's name ("" on version 2)."""

    @abstractmethod
    def freeze(self) -> None:
        """Stop every process of the group, and wait until the last one has."""

    @abstractmethod
    def thaw(self) -> None:
        """Let them go on."""

    @abstractmethod
    def stats(self) -> dict[str, Any]:
        """Counters as `RuntimeDriver.stats` gives them."""

    @abstractmethod
    def oom_fd(self) -> int:
        """A descriptor that becomes readable after an out-of-memory kill, or -1."""

    @abstractmethod
    def oom_kills(self) -> int:
        """How many processes the kernel has killed in this group for its memory limit."""

    @abstractmethod
    def pids(self) -> list[int]:
        """Host pids of the processes in the group and in groups below it."""

    @abstractmethod
    def kill(self) -> None:
        """Send SIGKILL to every process, also to one that is being forked."""

    def delete(self) -> None:
        """End what is left and remove the group with all groups below. Succeeds when it is not there.

        Errors: DriverError (processes that cannot end, as in uninterruptible sleep).
        """
        if not any(Path(directory).exists() for directory in self.directories().values()):
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
    folder = Path(directory)
    try:
        try:
            folder.mkdir(mode=0o755)
        except FileNotFoundError:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        except FileExistsError:
            # The caller may be in another pid namespace, where it cannot see whose processes these are.
            if not remove_tree(directory):
                raise Conflict(f"cgroup {directory} is in use by another container's processes") from None
            folder.mkdir(mode=0o755, exist_ok=True)
    except OSError as error:
        raise DriverError(f"cannot make cgroup {directory}: {os.strerror(error.errno or 0).lower()}") from error


def clean(path: str) -> str:
    """A cgroup path without a leading slash. Errors: InvalidArgument (empty, or climbing)."""
    parts = [part for part in path.split("/") if part and part != "."]
    if not parts or ".." in parts:
        raise InvalidArgument(f'linux.cgroupsPath "{path}" is not a path below the cgroup root')
    return "/".join(parts)


def write(directory: str, name: str, value: str) -> None:
    """Write one control file. Errors: InvalidArgument with the kernel's word, as users know it from runc."""
    try:
        fd = os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        word = os.strerror(error.errno or 0).lower()
        raise InvalidArgument(
            f'failed to write "{value}" to {name}: {word}', details={"file": f"{directory}/{name}"}
        ) from error


def read(directory: str, name: str) -> str:
    """The text of a control file, "" when there is none."""
    try:
        fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        chunks = []
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
    except OSError:  # the group went away, or the kernel has no figures (EOPNOTSUPP)
        return ""
    finally:
        os.close(fd)
    return b"".join(chunks).decode("ascii", "replace")


def read_int(directory: str, name: str) -> int:
    """A control file's number; 0 when there is none, "max" as 2**63 - 1."""
    text = read(directory, name).strip()
    if text == "max":
        return (1 << 63) - 1
    return int(text) if text.lstrip("-").isdigit() else 0


def flat(text: str) -> dict[str, int]:
    """The lines of a "flat keyed" control file: `key value`."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].lstrip("-").isdigit()}


def below(directory: str) -> list[str]:
    """The folder and all groups below it, deepest first."""
    found: list[str] = []
    for folder, _, _ in os.walk(directory, topdown=False):
        found.append(folder)
    return found


def tree_pids(directory: str) -> list[int]:
    """Pids in a group and the groups below it."""
    found: list[int] = []
    for folder in below(directory):
        found += [int(line) for line in read(folder, "cgroup.procs").split()]
    return found


def remove_tree(directory: str) -> bool:
    """Remove a group and those below it; False while something is in it."""
    try:
        Path(directory).rmdir()
        return True
    except OSError:
        folders = below(directory)
    for folder in folders:
        try:
            Path(folder).rmdir()
        except OSError as error:
            if error.errno == errno.ENOENT:
                continue
            if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
                return False
            raise DriverError(f"cannot remove cgroup {folder}: {os.strerror(error.errno or 0).lower()}") from error
    return True
