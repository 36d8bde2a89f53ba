"""One daemon on one data root, and one pid file: both held by flock(2), which the kernel ends with the process."""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path
from types import TracebackType

from wharfie.spi.errors import Conflict


class LockedFile:
    """A file with this process's id in it, locked as long as this object is open. Left behind by a killed process it is
    nobody's obstacle."""

    def __init__(self, path: Path, what: str) -> None:
        """Errors: Conflict when a process that lives holds the lock; OSError."""
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            raise Conflict(
                f"{what} is in use by another daemon (process {owner}, lock {path}); "
                "stop that one, or give this one other folders"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def close(self, *, remove: bool) -> None:
        """Give the lock back. May be repeated."""
        if self._descriptor < 0:
            return
        if remove:
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = -1


class Locks:
    """The locks of a daemon, for its life."""

    def __init__(self, data_root: Path, pid_path: Path) -> None:
        """Errors: Conflict, OSError."""
        self._root = LockedFile(data_root / "wharfied.lock", f"data root {data_root}")
        try:
            pid_path.parent.mkdir(parents=True, exist_ok=True)
            self._pid = LockedFile(pid_path, f"pid file {pid_path}")
        except BaseException:
            self._root.close(remove=False)
            raise

    def __enter__(self) -> Locks:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pid.close(remove=True)
        # The file stays: were it removed, two daemons could hold locks on two files of that name.
        self._root.close(remove=False)


def instance_of(data_root: Path) -> str:
    """Eight hex digits that are this data root's own, made at its first use."""
    path = data_root / "instance"
    try:
        found = path.read_text().strip()
    except FileNotFoundError:
        found = ""
    if len(found) == 8 and all(digit in "0123456789abcdef" for digit in found):
        return found
    made = secrets.token_hex(4)
    new = path.with_suffix(".new")
    with new.open("w") as file:
        file.write(f"{made}\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    return made
