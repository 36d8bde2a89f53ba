"""State on disk: a folder for each container below `--root`, with

    state.json    a Record; replaced, never changed
    config.json   the bundle's configuration as it was at `create`
    start         the socket at which the first process waits (`wharfie_runtime_native.gate`)

The folder itself is locked (flock(2)) by whoever changes something, and by a first process until it is wholly made.
state.json is there before anything of the container is, so a `create` that was killed at any moment leaves what `delete`
can clean.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, NamedTuple

from wharfie.spi.errors import Conflict, DriverError, InvalidArgument, NotFound

_ID: Final = re.compile(r"[A-Za-z0-9_+.-]{1,255}")
_STATE: Final = "state.json"
_CONFIG: Final = "config.json"
_GATE: Final = "start"
_LOCK_SECONDS: Final = 30.0


class Record(NamedTuple):
    """What is known of a container. `pid` is 0 until it is made. `grouped`: its control group is its own, not one that
    somebody else's processes were found in. `pipes`: those among its streams, inode numbers by the stream's."""

    id: str
    version: str
    bundle: str
    rootfs: str
    cgroup: str
    created: str
    owner: int
    keyring: bool = True
    pid: int = 0
    pid_start: int = 0
    grouped: bool = False
    pipes: Mapping[str, int] = {}


class Folder:
    """One container's folder, opened until the end of a `with`. `fd` carries the lock."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self.fd)

    @property
    def id(self) -> str:
        return os.path.basename(self.path)

    @property
    def gate(self) -> str:
        """The address of the first process's socket: by way of a descriptor, since the path of a state folder may be longer
        than an address can be (107 bytes, unix(7))."""
        return f"/proc/self/fd/{self.fd}/{_GATE}"

    def has_gate(self) -> bool:
        """False once the container was started."""
        return os.path.exists(self.gate)

    def remove_gate(self) -> None:
        try:
            os.unlink(_GATE, dir_fd=self.fd)
        except FileNotFoundError:  # somebody else has removed the container
            pass

    def lock(self) -> None:
        """Errors: Conflict (another command does not come to its end), NotFound (it was removed meanwhile)."""
        end, pause = time.monotonic() + _LOCK_SECONDS, 0.001
        while not self._try_lock(fcntl.LOCK_EX):
            if time.monotonic() > end:
                raise Conflict(f"container {self.id} is busy: another command has been at work on it")
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
        try:
            same = os.path.samestat(os.fstat(self.fd), os.stat(self.path))
        except FileNotFoundError:
            same = False
        if not same:
            raise _missing(self.id)

    def unlock(self) -> None:
        fcntl.flock(self.fd, fcntl.LOCK_UN)

    def is_locked(self) -> bool:
        """Whether somebody else is at work."""
        if not self._try_lock(fcntl.LOCK_SH):
            return True
        self.unlock()
        return False

    def _try_lock(self, kind: int) -> bool:
        try:
            fcntl.flock(self.fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def record(self) -> Record | None:
        """None: `create` was killed before it had made anything."""
        try:
            return Record(**json.loads(self._read(_STATE)))
        except FileNotFoundError:
            return None

    def keep(self, record: Record) -> None:
        self._replace(_STATE, record._asdict())

    def config(self) -> Mapping[str, Any]:
        config: Mapping[str, Any] = json.loads(self._read(_CONFIG))
        return config

    def keep_config(self, config: Mapping[str, Any]) -> None:
        self._replace(_CONFIG, config)

    def _read(self, name: str) -> bytes:
        with open(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd), "rb") as file:
            return file.read()

    def _replace(self, name: str, document: Mapping[str, Any]) -> None:
        # Only the one who holds the lock writes, so the new file's name can always be the same.
        temporary = f".{name}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            with open(os.open(temporary, flags, 0o600, dir_fd=self.fd), "w", encoding="utf-8") as file:
                json.dump(document, file)
            os.rename(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except OSError as error:
            raise DriverError(f"cannot write {self.path}/{name}: {error.strerror}") from error

    def remove(self) -> None:
        """First the record: what is left when this is killed half-way is as if nothing had been made."""
        for name in (_STATE, f".{_STATE}", _CONFIG, f".{_CONFIG}", _GATE):
            try:
                os.unlink(name, dir_fd=self.fd)
            except FileNotFoundError:
                continue
        try:
            os.rmdir(self.path)
        except OSError as error:
            raise DriverError(f"cannot remove {self.path}: {error.strerror}") from error


class Store:
    """All folders below one root."""

    def __init__(self, root: str) -> None:
        self.root = root

    @property
    def cache(self) -> str:
        """Compiled seccomp filters. No container's id has an "@" in it."""
        cache = f"{self.root}/@seccomp"
        os.makedirs(cache, mode=0o700, exist_ok=True)
        return cache

    def reserve(self, id: str) -> Folder:
        """Make a folder and lock it. Errors: InvalidArgument (the id), Conflict (it is taken), DriverError."""
        if not _ID.fullmatch(id) or id in (".", ".."):
            raise InvalidArgument(f'invalid container id format: "{id}"; it may have letters, digits and _ + - .')
        path = f"{self.root}/{id}"
        try:
            os.makedirs(self.root, mode=0o700, exist_ok=True)
            os.mkdir(path, mode=0o700)
        except FileExistsError:
            raise Conflict(f"container with given ID already exists: {id}") from None
        except OSError as error:
            raise DriverError(f"cannot make {path}: {error.strerror}") from error
        folder = self._open(path)
        folder.lock()
        return folder

    def find(self, id: str) -> Folder:
        """Errors: NotFound."""
        if not _ID.fullmatch(id):
            raise _missing(id)
        return self._open(f"{self.root}/{id}")

    def locked(self, id: str) -> Folder:
        """Errors: NotFound, Conflict."""
        folder = self.find(id)
        try:
            folder.lock()
        except BaseException:
            os.close(folder.fd)
            raise
        return folder

    def ids(self) -> list[str]:
        try:
            return sorted(entry.name for entry in os.scandir(self.root) if _ID.fullmatch(entry.name))
        except FileNotFoundError:
            return []

    def _open(self, path: str) -> Folder:
        try:
            return Folder(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except (FileNotFoundError, NotADirectoryError):
            raise _missing(os.path.basename(path)) from None


def _missing(id: str) -> NotFound:
    return NotFound(f'container "{id}" does not exist')
