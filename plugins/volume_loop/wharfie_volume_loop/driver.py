"""The driver `loop`.

STATE/NAME/image       the file system
STATE/NAME/mnt         where it is mounted while somebody uses it; containers get the folder `_data` in it
STATE/NAME/opts.json   what the user asked for, and when
STATE/.staging, .trash volumes on their way in and out: each becomes visible, and goes, by one rename(2)
"""

from __future__ import annotations

import secrets
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from wharfie.spi.driver import Context, Fault, Problem, Strings, Usage
from wharfie.spi.errors import DataLoss, InvalidArgument, WharfieError
from wharfie.spi.mount_points import is_mounted, unmount
from wharfie.spi.volume import Volume, VolumeCapability, VolumeDriver
from wharfie.spi.volume_records import Record, VolumeRecords, sync_folder
from wharfie_volume_loop import image, loop, sizes
from wharfie_volume_loop.settings import LoopSettings


class LoopDriver(VolumeDriver):
    """Keeps each volume in a file system of its own."""

    name: ClassVar[str] = "loop"
    spi: ClassVar[str] = "1.0"
    settings: ClassVar[str] = "wharfie_volume_loop.settings:LoopSettings"

    def __init__(self, context: Context, settings: LoopSettings) -> None:
        self._root = context.state
        self._log = context.log
        self._default_size = settings.default_size
        self._records = VolumeRecords(context.state, context.log)
        self._staging = context.state / ".staging"
        self._trash = context.state / ".trash"
        self._uses: dict[str, set[str]] = {}  # of mounted volumes; told anew by `reconcile`
        self._locks: dict[str, threading.Lock] = {}

    def capabilities(self) -> frozenset[VolumeCapability]:
        return frozenset((VolumeCapability.USAGE, VolumeCapability.SIZE_LIMIT))

    def check(self) -> Sequence[Problem]:
        problems = []
        if shutil.which(image.MKFS) is None:
            problems.append(Problem(what=f"{image.MKFS} is not installed", fix="apt-get install e2fsprogs"))
        if "\text4\n" not in Path("/proc/filesystems").read_text():
            problems.append(Problem(what="ext4 is not in /proc/filesystems", fix="modprobe ext4"))
        if not Path("/dev/loop-control").exists():
            problems.append(Problem(what="there is no /dev/loop-control", fix="modprobe loop"))
        return problems

    def open(self) -> None:
        for folder in (self._staging, self._trash):
            folder.mkdir(mode=0o700, exist_ok=True)
            for left in folder.iterdir():
                self._delete(left)

    def create(self, name: str, options: Strings, labels: Strings) -> Volume:
        folder = self._records.folder(name)
        size = self._size(options)
        if not folder.exists():
            self._make(name, options, size)
        return _volume(self._records.read_same(name, options))

    def remove(self, name: str) -> None:
        folder = self._records.folder(name)
        with self._lock(name):
            unmount(folder / "mnt")
            self._uses.pop(name, None)
            gone = self._trash / secrets.token_hex(12)
            try:
                folder.rename(gone)
            except FileNotFoundError:
                return
        sync_folder(self._root)
        self._delete(gone)

    def get(self, name: str) -> Volume:
        return _volume(self._records.read(name))

    def volumes(self) -> Sequence[Volume]:
        return self._records.volumes(_volume)

    def mount(self, name: str, mount_id: str) -> Path:
        folder = self._records.folder(name)
        with self._lock(name):
            self.get(name)
            target = folder / "mnt"
            if not is_mounted(target):
                loop.mount(folder / "image", target)
            self._uses.setdefault(name, set()).add(mount_id)
            return target / image.FOLDER

    def unmount(self, name: str, mount_id: str) -> None:
        with self._lock(name):
            uses = self._uses.get(name)
            if uses is None:
                return
            uses.discard(mount_id)
            if not uses:
                unmount(self._records.folder(name) / "mnt")
                self._uses.pop(name, None)

    def usage(self, name: str) -> Usage:
        folder = self._records.folder(name)
        with self._lock(name):
            self.get(name)
            if is_mounted(folder / "mnt"):
                return image.usage_of_mount(folder / "mnt")
            return image.usage_of_image(folder / "image")

    def reconcile(self, mounts: Mapping[str, frozenset[str]]) -> Sequence[Fault]:
        faults: list[Fault] = []
        self._uses.clear()
        for volume in self.volumes():
            if not mounts.get(volume.name):
                unmount(self._records.folder(volume.name) / "mnt")
        for name, ids in mounts.items():
            try:
                for mount_id in ids:
                    self.mount(name, mount_id)
            except (WharfieError, OSError) as error:
                faults.append(Fault(object=name, reason=str(error)))
        return faults

    def _size(self, options: Strings) -> int:
        for option in options:
            if option != "size":
                raise InvalidArgument(f'invalid option: "{option}"; this driver knows "size"')
        try:
            return sizes.parse(options.get("size", self._default_size))
        except ValueError as error:
            raise InvalidArgument(f'invalid value for option "size": {error}') from None

    def _make(self, name: str, options: Strings, size: int) -> None:
        draft = self._staging / secrets.token_hex(12)
        draft.mkdir(mode=0o700)
        try:
            template = draft / "mnt" / image.FOLDER
            template.mkdir(parents=True)
            template.chmod(0o755)
            template.parent.chmod(0o755)
            image.make(draft / "image", size, draft / "mnt")
            template.rmdir()
            made = self._records.publish(draft, name, options)
        except BaseException:
            self._delete(draft)
            raise
        if not made:
            self._delete(draft)

    def _delete(self, folder: Path) -> None:
        """What is in staging or trash. Never enters a mount: the file system's own data go with its file."""
        unmount(folder / "mnt")
        for path in (folder / "image", folder / "opts.json"):
            path.unlink(missing_ok=True)
        for path in (folder / "mnt" / image.FOLDER, folder / "mnt", folder):
            try:
                path.rmdir()
            except FileNotFoundError:
                continue

    def _lock(self, name: str) -> threading.Lock:
        return self._locks.setdefault(name, threading.Lock())


def _volume(record: Record) -> Volume:
    """Errors: DataLoss."""
    try:
        size = (record.folder / "image").stat().st_size
    except FileNotFoundError:
        raise DataLoss(f"volume {record.name}: the file system {record.folder / 'image'} is missing") from None
    return Volume(
        name=record.name,
        mountpoint=record.folder / "mnt" / image.FOLDER,
        created=record.created,
        options=record.options,
        status={"size": size},
    )
