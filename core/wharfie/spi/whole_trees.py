"""Storage drivers whose layers and snapshots are whole trees, each in a folder of its own: what they have in common.

For file systems that make a tree out of another at once or share its blocks (btrfs, reflinks), and for plain copies. A
driver says how a folder begins and how it goes; names, records, comparison and recovery are here.

STATE/trees/SHORT/files        the tree; SHORT is made from the name
STATE/trees/SHORT/record.json  what it is, written before the folder gets its name
STATE/staging, STATE/trash     folders on their way in and out: each becomes visible, and goes, by one rename(2)
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
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from wharfie.spi import tree
from wharfie.spi.driver import Context, Fault, FileDescriptor, Usage
from wharfie.spi.errors import Conflict, NotFound, OutOfSpace, Unsupported
from wharfie.spi.inroot import FOLDER
from wharfie.spi.placement import spread_out
from wharfie.spi.storage import Change, Layer, Mount, SnapshotOptions, StorageDriver
from wharfie.spi.tar import Whiteouts, unpack
from wharfie.spi.tree import Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is written down of a tree."""

    name: str
    kind: Literal["layer", "snapshot"]
    parent: str | None
    size: int = 0

    @property
    def layer(self) -> Layer:
        return Layer(name=self.name, parent=self.parent, size=self.size)


class WholeTreeDriver(StorageDriver):
    """All of a storage driver but how folders are made and removed."""

    def __init__(self, context: Context, settings: Any) -> None:
        super().__init__(context, settings)
        self._trees, self._staging, self._trash = (context.state / name for name in ("trees", "staging", "trash"))
        self._lock = threading.Lock()
        self._records: dict[str, Record] = {}
        self._broken: dict[str, str] = {}  # folder → why
        self._making: set[str] = set()  # in `staging`

    # ---- what a driver says

    @abstractmethod
    def begin(self, folder: Path, source: Path | None) -> None:
        """Make `folder`, with all that `source` (of the same kind) has; without one, an empty folder `files` in it."""

    @abstractmethod
    def destroy(self, where: int, name: str) -> None:
        """Remove the folder `name` in the opened folder `where` with all that is in it. May be repeated."""

    def settle(self, root: int) -> None:
        """A layer's files are all there, below the opened folder `root`: nobody looks at them again before their use."""

    def inspect(self, folder: Path) -> None:
        """Found at a start. Errors: ValueError, if it is not what `begin` makes."""

    # ---- the contract

    def open(self) -> None:
        for folder in (self._trees, self._staging, self._trash):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        spread_out(self._staging)
        self._records, self._broken = {}, {}
        for folder in self._trees.iterdir():
            try:
                record = Record(**json.loads((folder / "record.json").read_text()))
                if self.folder(record.name) != folder or not (folder / "files").is_dir():
                    raise ValueError("its name or files do not fit")
                self.inspect(folder)
                self._records[record.name] = record
            except (OSError, ValueError, TypeError) as error:
                self._broken[folder.name] = f"the tree in {folder} is damaged: {error}"

    def apply(self, layer: str, parent: str | None, diff: FileDescriptor) -> Layer:
        record = self._records.get(layer)
        if record is None:
            self._need_layer(parent)
            with self.stage(parent) as folder, opened(folder / "files") as root:
                done = unpack(diff, root, Whiteouts.REMOVE)
                self.settle(root)
                record = self.publish(folder, Record(name=layer, kind="layer", parent=parent, size=done.size))
        if record.kind != "layer" or record.parent != parent:
            raise Conflict(f"{layer} is there as a {record.kind} on {record.parent}")
        return record.layer

    def create(self, key: str, parent: str | None, options: SnapshotOptions) -> None:
        if options.size:
            raise Unsupported(
                f'storage driver "{self.name}" cannot limit the size of a container: leave the option size out'
            )
        record = self._records.get(key)
        if record is None:
            self._need_layer(parent)
            with self.stage(parent) as folder:
                record = self.publish(folder, Record(name=key, kind="snapshot", parent=parent))
        if record.kind != "snapshot" or record.parent != parent:
            raise Conflict(f"{key} is there as a {record.kind} on {record.parent}")

    def mounts(self, key: str) -> tuple[Mount, ...]:
        options = ("bind", "ro") if self.record(key).kind == "layer" else ("bind",)
        return (Mount(type="bind", source=str(self.folder(key) / "files"), options=options),)

    def remove(self, name: str) -> None:
        with self._lock:
            above = next((record.name for record in self._records.values() if record.parent == name), None)
            if above is not None:
                raise Conflict(f"the layer {name} is in use: {above} stands on it")
            thrown = self._throw_away(self.folder(name).name)
            self._records.pop(name, None)
        self._empty(self._trash, thrown)

    def layers(self) -> Sequence[Layer]:
        with self._lock:
            found = [record.layer for record in self._records.values() if record.kind == "layer"]
        return sorted(found, key=lambda layer: layer.name)

    def usage(self, name: str) -> Usage:
        if self.record(name).kind == "layer":
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

    def reconcile(self, wanted: frozenset[str]) -> Sequence[Fault]:
        with self._lock:
            kept = {self.folder(name).name for name in wanted}
            for name in wanted:
                record = self._records.get(name)
                while record is not None and record.parent is not None:
                    kept.add(self.folder(record.parent).name)
                    record = self._records.get(record.parent)
            for folder in [path.name for path in self._trees.iterdir() if path.name not in kept]:
                self._throw_away(folder)
            self._records = {name: record for name, record in self._records.items() if self.folder(name).name in kept}
            left = [path.name for path in self._staging.iterdir() if path.name not in self._making]
        self._empty(self._staging, left)
        self._empty(self._trash, [path.name for path in self._trash.iterdir()])
        missing = sorted(name for name in wanted if name not in self._records)
        return [Fault(object=name, reason=self._broken.get(self.folder(name).name, "it is not there")) for name in missing]

    # ---- for a driver's further methods

    def folder(self, name: str) -> Path:
        """Where the tree of this name is, or would be."""
        return self._trees / base64.b32encode(hashlib.sha256(name.encode()).digest())[:26].decode()

    def record(self, name: str) -> Record:
        """Errors: NotFound."""
        record = self._records.get(name)
        if record is None:
            raise NotFound(f"no such layer or snapshot: {name}")
        return record

    def known(self, name: str) -> Record | None:
        return self._records.get(name)

    @contextlib.contextmanager
    def stage(self, source: str | None) -> Iterator[Path]:
        """A folder with what `source` has; if it is still there at the end it goes. Errors: NotFound, OutOfSpace."""
        begin = self.folder(self.record(source).name) if source is not None else None
        folder = self._staging / secrets.token_hex(8)
        self._making.add(folder.name)
        try:
            with _explained(f"make a folder in {self._staging}"):
                self.begin(folder, begin)
                folder.chmod(0o700)
            yield folder
        finally:
            self._empty(self._staging, [folder.name])
            self._making.discard(folder.name)

    def publish(self, folder: Path, record: Record) -> Record:
        """Give a staged folder its name, unless somebody was faster: then the record that is there. Errors: NotFound."""
        with _explained(f"write down {record.name}"), open(folder / "record.json", "w") as file:
            file.write(json.dumps(asdict(record)))
            file.flush()
            os.fsync(file.fileno())
        with self._lock:
            if record.name in self._records:
                return self._records[record.name]
            if record.parent is not None and record.parent not in self._records:
                raise NotFound(f"no such layer: {record.parent}")
            target = self.folder(record.name)
            thrown = self._throw_away(target.name)  # a damaged one
            folder.rename(target)
            self._records[record.name] = record
        self._empty(self._trash, thrown)
        return record

    # ---- inside

    def _need_layer(self, parent: str | None) -> None:
        if parent is not None and self.record(parent).kind != "layer":
            raise NotFound(f"no such layer: {parent}")

    @contextlib.contextmanager
    def _compared(self, key: str) -> Iterator[tuple[Tree | None, Tree]]:
        parent = self.record(key).parent
        with opened(self.folder(key) / "files") as new:
            if parent is None:
                yield None, Tree(new)
                return
            with opened(self.folder(self.record(parent).name) / "files") as old:
                yield Tree(old), Tree(new)

    def _throw_away(self, folder: str) -> list[str]:
        token = secrets.token_hex(8)
        try:
            (self._trees / folder).rename(self._trash / token)
        except FileNotFoundError:
            return []
        self._broken.pop(folder, None)
        return [token]

    def _empty(self, folder: Path, names: Sequence[str]) -> None:
        with opened(folder) as where:
            for name in names:
                self.destroy(where, name)


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[int]:
    """A descriptor of a folder, for as long as the context."""
    fd = os.open(folder, FOLDER)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Say what failed when the disk is full, be it the file system or a quota."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfSpace(f"cannot {what}: {error.strerror}") from error
        raise
