"""The driver `btrfs`: each layer and snapshot is a subvolume, begun as a snapshot of its parent's.

STATE/trees/SHORT              the subvolume; SHORT is made from the name
STATE/trees/SHORT/files        the tree
STATE/trees/SHORT/record.json  what it is, written before the subvolume gets its name
STATE/staging, STATE/trash     subvolumes on their way in and out
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import json
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from wharfie.spi import tree
from wharfie.spi.call import progress
from wharfie.spi.driver import Context, Fault, FileDescriptor, Problem, Usage
from wharfie.spi.errors import Conflict, NotFound, OutOfSpace, Unsupported
from wharfie.spi.inroot import FOLDER, syncfs
from wharfie.spi.storage import Change, Layer, Mount, SnapshotOptions, StorageCapability, StorageDriver
from wharfie.spi.tar import Whiteouts, unpack
from wharfie.spi.tree import Tree
from wharfie_storage_btrfs import subvolumes


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is written down of a subvolume."""

    name: str
    kind: Literal["layer", "snapshot"]
    parent: str | None
    size: int = 0


class BtrfsDriver(StorageDriver):
    """Layers and snapshots as subvolumes."""

    name: ClassVar[str] = "btrfs"
    spi: ClassVar[str] = "1.0"

    def __init__(self, context: Context, settings: Any) -> None:
        super().__init__(context, settings)
        self._state = context.state
        self._trees, self._staging, self._trash = (context.state / name for name in ("trees", "staging", "trash"))
        self._lock = threading.Lock()
        self._records: dict[str, Record] = {}
        self._broken: dict[str, str] = {}  # folder → why
        self._making: set[str] = set()  # in `staging`

    def capabilities(self) -> frozenset[StorageCapability]:
        return frozenset({StorageCapability.PROMOTE})

    def check(self) -> Sequence[Problem]:
        if os.geteuid() != 0:
            return [Problem(what="not allowed to remove subvolumes", fix="run wharfied as root, with CAP_SYS_ADMIN")]
        with _opened(self._state) as folder:
            if subvolumes.on_btrfs(folder):
                return []
        fix = 'move data-root to btrfs, or set "storage-driver" to another one'
        return [Problem(what=f"{self._state} is not on btrfs", fix=fix)]

    def open(self) -> None:
        for folder in (self._trees, self._staging, self._trash):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._records, self._broken = {}, {}
        for folder in self._trees.iterdir():
            try:
                record = Record(**json.loads((folder / "record.json").read_text()))
                if self._folder(record.name) != folder or not (folder / "files").is_dir():
                    raise ValueError("its name or files do not fit")
                if not subvolumes.is_subvolume(folder.stat()):
                    raise ValueError("it is a plain folder, not a subvolume: was it copied here?")
                self._records[record.name] = record
            except (OSError, ValueError, TypeError) as error:
                self._broken[folder.name] = f"the subvolume {folder} is damaged: {error}"

    def apply(self, layer: str, parent: str | None, diff: FileDescriptor) -> Layer:
        record = self._records.get(layer)
        if record is None:
            self._need_layer(parent)
            with self._stage(parent) as folder, _opened(folder / "files") as root:
                done = unpack(diff, root, Whiteouts.REMOVE)
                progress()
                syncfs(root)  # a layer is not looked at again
                record = self._publish(folder, Record(name=layer, kind="layer", parent=parent, size=done.size))
        if record.kind != "layer" or record.parent != parent:
            raise Conflict(f"{layer} is there as a {record.kind} on {record.parent}")
        return _layer(record)

    def create(self, key: str, parent: str | None, options: SnapshotOptions) -> None:
        if options.size:
            raise Unsupported(
                f'storage driver "{self.name}" cannot limit the size of a container: leave the option size out'
            )
        record = self._records.get(key)
        if record is None:
            self._need_layer(parent)
            with self._stage(parent) as folder:
                record = self._publish(folder, Record(name=key, kind="snapshot", parent=parent))
        if record.kind != "snapshot" or record.parent != parent:
            raise Conflict(f"{key} is there as a {record.kind} on {record.parent}")

    def mounts(self, key: str) -> tuple[Mount, ...]:
        options = ("bind", "ro") if self._record(key).kind == "layer" else ("bind",)
        return (Mount(type="bind", source=str(self._folder(key) / "files"), options=options),)

    def remove(self, name: str) -> None:
        with self._lock:
            above = next((record.name for record in self._records.values() if record.parent == name), None)
            if above is not None:
                raise Conflict(f"the layer {name} is in use: {above} stands on it")
            thrown = self._throw_away(self._folder(name).name)
            self._records.pop(name, None)
        self._empty(self._trash, thrown)

    def layers(self) -> Sequence[Layer]:
        with self._lock:
            return sorted(
                (_layer(record) for record in self._records.values() if record.kind == "layer"), key=lambda one: one.name
            )

    def usage(self, name: str) -> Usage:
        if self._record(name).kind == "layer":
            return Usage(size=self._records[name].size)
        with self._compared(name) as (old, new):
            own = [found.node.facts for found in tree.compare(old, new) if found.node is not None]
        return Usage(size=sum(facts.st_size for facts in own if facts.st_mode & 0o170000 != 0o040000), inodes=len(own))

    def diff(self, key: str, out: FileDescriptor) -> None:
        with self._compared(key) as (old, new):
            tree.diff(old, new, out)

    def changes(self, key: str) -> Sequence[Change]:
        with self._compared(key) as (old, new):
            return tree.changes(old, new)

    def promote(self, key: str, layer: str) -> Layer:
        record = self._records.get(layer)
        if record is None:
            snapshot = self._record(key)
            if snapshot.kind != "snapshot":
                raise Conflict(f"{key} is a layer already")
            with _opened(self._folder(key)) as own:
                if subvolumes.nested(own):
                    raise Unsupported(f"{key} has subvolumes of its own, which a layer cannot hold: use diff and apply")
            new = Record(name=layer, kind="layer", parent=snapshot.parent, size=self.usage(key).size)
            # Of the snapshot, not itself: until the layer is there whole, the snapshot stays what it was.
            with self._stage(key) as folder, _opened(folder) as root:
                syncfs(root)
                record = self._publish(folder, new)
        if record.kind != "layer":
            raise Conflict(f"{layer} is there as a {record.kind}")
        self.remove(key)
        return _layer(record)

    def reconcile(self, wanted: frozenset[str]) -> Sequence[Fault]:
        with self._lock:
            kept = {self._folder(name).name for name in wanted}
            for name in wanted:
                record = self._records.get(name)
                while record is not None and record.parent is not None:
                    kept.add(self._folder(record.parent).name)
                    record = self._records.get(record.parent)
            for folder in [path.name for path in self._trees.iterdir() if path.name not in kept]:
                self._throw_away(folder)
            self._records = {name: record for name, record in self._records.items() if self._folder(name).name in kept}
            left = [path.name for path in self._staging.iterdir() if path.name not in self._making]
        self._empty(self._staging, left)
        self._empty(self._trash, [path.name for path in self._trash.iterdir()])
        missing = sorted(name for name in wanted if name not in self._records)
        return [Fault(object=name, reason=self._broken.get(self._folder(name).name, "it is not there")) for name in missing]

    def _folder(self, name: str) -> Path:
        return self._trees / base64.b32encode(hashlib.sha256(name.encode()).digest())[:26].decode()

    def _record(self, name: str) -> Record:
        record = self._records.get(name)
        if record is None:
            raise NotFound(f"no such layer or snapshot: {name}")
        return record

    def _need_layer(self, parent: str | None) -> None:
        if parent is not None and self._record(parent).kind != "layer":
            raise NotFound(f"no such layer: {parent}")

    @contextlib.contextmanager
    def _compared(self, key: str) -> Iterator[tuple[Tree | None, Tree]]:
        parent = self._record(key).parent
        with _opened(self._folder(key) / "files") as new:
            if parent is None:
                yield None, Tree(new)
                return
            with _opened(self._folder(self._record(parent).name) / "files") as old:
                yield Tree(old), Tree(new)

    @contextlib.contextmanager
    def _stage(self, source: str | None) -> Iterator[Path]:
        """A subvolume with what `source` has; if it is still there at the end it goes. Errors: NotFound, OutOfSpace."""
        begin = self._folder(self._record(source).name) if source is not None else None
        folder = self._staging / secrets.token_hex(8)
        self._making.add(folder.name)
        try:
            with _opened(self._staging) as staging, _explained(f"make a subvolume in {self._staging}"):
                if begin is None:
                    subvolumes.create(staging, folder.name)
                    (folder / "files").mkdir()
                    (folder / "files").chmod(0o755)  # whatever the umask
                else:
                    with _opened(begin) as below:
                        subvolumes.snapshot(below, staging, folder.name)
                folder.chmod(0o700)
            yield folder
        finally:
            self._empty(self._staging, [folder.name])
            self._making.discard(folder.name)

    def _publish(self, folder: Path, record: Record) -> Record:
        with _explained(f"write down {record.name}"), open(folder / "record.json", "w") as file:
            file.write(json.dumps(asdict(record)))
            file.flush()
            os.fsync(file.fileno())
        with self._lock:
            if record.name in self._records:
                return self._records[record.name]
            if record.parent is not None and record.parent not in self._records:
                raise NotFound(f"no such layer: {record.parent}")
            target = self._folder(record.name)
            thrown = self._throw_away(target.name)  # a damaged one
            folder.rename(target)
            self._records[record.name] = record
        self._empty(self._trash, thrown)
        return record

    def _throw_away(self, folder: str) -> list[str]:
        token = secrets.token_hex(8)
        try:
            (self._trees / folder).rename(self._trash / token)
        except FileNotFoundError:
            return []
        self._broken.pop(folder, None)
        return [token]

    @staticmethod
    def _empty(folder: Path, names: Sequence[str]) -> None:
        with _opened(folder) as where:
            for name in names:
                subvolumes.destroy(where, name)


def _layer(record: Record) -> Layer:
    return Layer(name=record.name, parent=record.parent, size=record.size)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    fd = os.open(folder, FOLDER)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Say what failed when the disk is full, be it the file system or a quota group."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfSpace(f"cannot {what}: {error.strerror}") from error
        raise
