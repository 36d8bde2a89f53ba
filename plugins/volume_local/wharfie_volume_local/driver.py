"""The driver `local`: a volume is a folder, or a file system that is mounted on one while somebody uses it.

STATE/NAME/_data       the volume; the mount point of volumes with `type` and `device`
STATE/NAME/opts.json   what the user asked for, and when
STATE/.staging, .trash volumes on their way in and out: each becomes visible, and goes, by one rename(2)
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from wharfie.spi import sizes
from wharfie.spi.call import progress
from wharfie.spi.driver import Context, Fault, Strings, Usage
from wharfie.spi.errors import Conflict, DataLoss, InvalidArgument, NotFound, WharfieError
from wharfie.spi.volume import Volume, VolumeCapability, VolumeDriver
from wharfie_volume_local import mounting, quota
from wharfie_volume_local.options import needs_mount, validate
from wharfie_volume_local.trash import Trash


class LocalDriver(VolumeDriver):
    """Keeps volumes in this host's file systems."""

    name: ClassVar[str] = "local"
    spi: ClassVar[str] = "1.0"

    def __init__(self, context: Context, settings: Any) -> None:
        super().__init__(context, settings)
        self._root = context.state
        self._log = context.log
        self._staging = context.state / ".staging"
        self._trash = Trash(context.state / ".trash", context.log)
        self._projects = threading.Lock()  # from choosing a project's number to its being seen on a folder
        self._uses: dict[str, set[str]] = {}  # of volumes that are mounted; told anew by `reconcile`
        self._closing = threading.Event()
        self._sweeper: threading.Thread | None = None

    def capabilities(self) -> frozenset[VolumeCapability]:
        limits = {VolumeCapability.SIZE_LIMIT} if quota.offered(self._root) else set()
        return frozenset({VolumeCapability.USAGE, *limits})

    def open(self) -> None:
        if self._staging.exists():
            self._trash.take(self._staging)
        self._staging.mkdir(mode=0o700)
        # A killed predecessor may have left gigabytes: not within the deadline of a start.
        self._closing.clear()
        self._sweeper = threading.Thread(target=self._sweep, name="volume-local-sweep", daemon=True)
        self._sweeper.start()

    def close(self) -> None:
        self._closing.set()
        if self._sweeper is not None:
            self._sweeper.join(timeout=5)
            self._sweeper = None

    def create(self, name: str, options: Strings, labels: Strings) -> Volume:
        folder = self._folder(name)
        validate(options)
        if "size" in options and not quota.offered(self._root):
            raise InvalidArgument(
                f"quota size requested but no quota support: the file system of {self._root} keeps no project quotas "
                "(ext4 and XFS do when mounted with prjquota); a volume with `type=tmpfs`, `device=tmpfs` and `o=size=…` "
                "has a limit anywhere"
            )
        if not folder.exists():
            self._make(folder, options)
        volume = self.get(name)
        if volume.options != dict(options):
            raise Conflict(
                f"create {name}: a volume with this name exists with other options ({_shown(volume.options)}, "
                f"asked for {_shown(options)}); remove it first or choose another name"
            )
        return volume

    def remove(self, name: str) -> None:
        folder = self._folder(name)
        if not folder.exists():
            return
        mounting.unmount(folder / "_data")
        self._uses.pop(name, None)
        with self._projects:
            project = quota.project_of(folder / "_data")
            self._trash.take(folder)
            if project:
                quota.lift(self._root, project)
        self._trash.empty()

    def get(self, name: str) -> Volume:
        folder = self._folder(name)
        path = folder / "opts.json"
        try:
            record = json.loads(path.read_text())
            return Volume(
                name=name, mountpoint=folder / "_data", created=record["created"], options=dict(record["options"])
            )
        except (FileNotFoundError, NotADirectoryError):
            if folder.is_dir():
                raise DataLoss(f"volume {name}: {path} is missing; its data is in {folder / '_data'}") from None
            raise NotFound(f"get {name}: no such volume") from None
        except (ValueError, KeyError, TypeError) as error:
            raise DataLoss(f"volume {name}: {path} is damaged ({error}); its data is in {folder / '_data'}") from None

    def volumes(self) -> Sequence[Volume]:
        found: list[Volume] = []
        for folder in sorted(self._root.iterdir()):
            if folder.name.startswith(".") or not folder.is_dir():
                continue
            try:
                found.append(self.get(folder.name))
            except NotFound:  # removed meanwhile
                continue
            except DataLoss as error:
                self._log.warning("%s", error)
        return found

    def mount(self, name: str, mount_id: str) -> Path:
        volume = self.get(name)
        path = self._folder(name) / "_data"
        if not path.is_dir():
            raise DataLoss(f"mount {name}: the volume's folder {path} is gone; somebody removed it by hand")
        if needs_mount(volume.options):
            if not mounting.is_mounted(path):
                mounting.mount(volume.options["device"], path, volume.options["type"], volume.options.get("o", ""))
            self._uses.setdefault(name, set()).add(mount_id)
        return path

    def unmount(self, name: str, mount_id: str) -> None:
        uses = self._uses.get(name)
        if uses is None:
            return
        uses.discard(mount_id)
        if not uses:
            mounting.unmount(self._folder(name) / "_data")
            self._uses.pop(name, None)

    def usage(self, name: str) -> Usage:
        self.get(name)
        return _measure(self._folder(name) / "_data")

    def reconcile(self, mounts: Mapping[str, frozenset[str]]) -> Sequence[Fault]:
        faults: list[Fault] = []
        self._uses.clear()
        for volume in self.volumes():
            wanted = mounts.get(volume.name, frozenset())
            if not wanted and needs_mount(volume.options):
                mounting.unmount(self._folder(volume.name) / "_data")
        for name, ids in mounts.items():
            try:
                for mount_id in ids:
                    self.mount(name, mount_id)
            except WharfieError as error:
                faults.append(Fault(object=name, reason=error.message))
        return faults

    def _make(self, folder: Path, options: Strings) -> None:
        draft = self._staging / secrets.token_hex(12)
        draft.mkdir()
        draft.chmod(0o701)
        data = draft / "_data"
        data.mkdir()
        data.chmod(0o755)
        if "size" in options:
            self._limit(data, sizes.parse(options["size"]))
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with open(draft / "opts.json", "w") as file:
            json.dump({"created": created, "options": dict(options)}, file)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(draft)
        try:
            draft.rename(folder)
        except OSError as error:
            self._trash.take(draft)
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # else made meanwhile by a call that was given up
                raise
        _sync_folder(self._root)

    def _limit(self, data: Path, size: int) -> None:
        with self._projects:
            others = [*self._staging.glob("*/_data"), *self._root.glob("*/_data")]
            quota.limit(data, quota.next_project(self._root, others), size)

    def _folder(self, name: str) -> Path:
        """Errors: InvalidArgument: a name that would lead elsewhere. The core checks names by Docker's rule before."""
        if not name or name.startswith(".") or "/" in name or "\0" in name:
            raise InvalidArgument(f"{name!r} cannot be the name of a local volume")
        return self._root / name

    def _sweep(self) -> None:
        self._trash.empty(lambda: not self._closing.is_set())


def _measure(root: Path) -> Usage:
    """The sizes of all files below `root`, each inode once, as Docker counts. What vanishes meanwhile does not count."""
    seen: set[tuple[int, int]] = set()
    size = 0
    pending = [root]
    while pending:
        progress()
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    if (status.st_dev, status.st_ino) in seen:
                        continue
                    seen.add((status.st_dev, status.st_ino))
                    if stat.S_ISDIR(status.st_mode):
                        pending.append(Path(entry.path))
                    else:
                        size += status.st_size
        except OSError:
            continue
    return Usage(size=size, inodes=len(seen))


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _shown(options: Strings) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(options.items())) or "none"
