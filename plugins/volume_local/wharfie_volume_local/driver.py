"""The driver `local`: a volume is a folder, or a file system that is mounted on one while somebody uses it.

STATE/NAME/_data       the volume; the mount point of volumes with `type` and `device`
STATE/NAME/opts.json   what the user asked for, and when
STATE/.staging, .trash volumes on their way in and out: each becomes visible, and goes, by one rename(2)
"""

from __future__ import annotations

import os
import secrets
import stat
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from wharfie.spi import sizes
from wharfie.spi.call import progress
from wharfie.spi.driver import Context, Fault, Strings, Usage
from wharfie.spi.errors import DataLoss, InvalidArgument, NotFound, Unsupported, WharfieError
from wharfie.spi.mount_points import is_mounted
from wharfie.spi.volume import Volume, VolumeCapability, VolumeDriver
from wharfie.spi.volume_records import Record, VolumeRecords
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
        self._records = VolumeRecords(context.state, context.log)
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
        folder = self._records.folder(name)
        validate(options)
        if "size" in options and not quota.offered(self._root):
            raise InvalidArgument(
                f"quota size requested but no quota support: the file system of {self._root} keeps no project quotas "
                "(ext4 and XFS do when mounted with prjquota); a volume with `type=tmpfs`, `device=tmpfs` and `o=size=…` "
                "has a limit anywhere"
            )
        if not folder.exists():
            self._make(name, options)
        return _volume(self._records.read_same(name, options))

    def remove(self, name: str) -> None:
        folder = self._records.folder(name)
        if not folder.exists():
            return
        self._end_mount(name)
        self._uses.pop(name, None)
        with self._projects:
            project = quota.project_of(folder / "_data")
            self._trash.take(folder)
            if project:
                quota.lift(self._root, project)
        self._trash.empty()

    def get(self, name: str) -> Volume:
        return _volume(self._records.read(name))

    def volumes(self) -> Sequence[Volume]:
        return self._records.volumes(_volume)

    def mount(self, name: str, mount_id: str) -> Path:
        volume = self.get(name)
        path = self._records.folder(name) / "_data"
        if needs_mount(volume.options) and is_mounted(path):  # no look at it: its server may not answer
            self._uses.setdefault(name, set()).add(mount_id)
            return path
        if not path.is_dir():
            raise DataLoss(f"mount {name}: the volume's folder {path} is gone; somebody removed it by hand")
        if needs_mount(volume.options):
            mounting.mount(volume.options["device"], path, volume.options["type"], volume.options.get("o", ""))
            self._uses.setdefault(name, set()).add(mount_id)
        return path

    def unmount(self, name: str, mount_id: str) -> None:
        uses = self._uses.get(name)
        if uses is None:
            return
        uses.discard(mount_id)
        if not uses:
            self._end_mount(name)
            self._uses.pop(name, None)

    def usage(self, name: str) -> Usage:
        if needs_mount(self.get(name).options):
            raise Unsupported(f"volume {name} is a file system of its own, whose files are not counted")
        return _measure(self._records.folder(name) / "_data")

    def reconcile(self, mounts: Mapping[str, frozenset[str]]) -> Sequence[Fault]:
        faults: list[Fault] = []
        self._uses.clear()
        for volume in self.volumes():
            wanted = mounts.get(volume.name, frozenset())
            if not wanted and needs_mount(volume.options):
                try:
                    self._end_mount(volume.name)
                except WharfieError as error:
                    faults.append(Fault(object=volume.name, reason=error.message))
        for name, ids in mounts.items():
            try:
                for mount_id in ids:
                    self.mount(name, mount_id)
            except WharfieError as error:
                faults.append(Fault(object=name, reason=error.message))
        return faults

    def _end_mount(self, name: str) -> None:
        try:
            kind = self._records.read(name).options.get("type", "")
        except (NotFound, DataLoss):  # what it was is not known any more
            kind = ""
        mounting.end(self._records.folder(name) / "_data", kind)

    def _make(self, name: str, options: Strings) -> None:
        draft = self._staging / secrets.token_hex(12)
        draft.mkdir()
        draft.chmod(0o701)
        data = draft / "_data"
        data.mkdir()
        data.chmod(0o755)
        try:
            if "size" in options:
                self._limit(data, sizes.parse(options["size"]))
            made = self._records.publish(draft, name, options)
        except BaseException:
            self._trash.take(draft)
            raise
        if not made:
            self._trash.take(draft)

    def _limit(self, data: Path, size: int) -> None:
        with self._projects:
            others = [*self._staging.glob("*/_data"), *self._root.glob("*/_data")]
            quota.limit(data, quota.next_project(self._root, others), size)

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


def _volume(record: Record) -> Volume:
    return Volume(name=record.name, mountpoint=record.folder / "_data", created=record.created, options=record.options)
