"""The driver: layers unpacked into folders of their own, snapshots as upper folders, mounts described and never made."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from wharfie.spi import nodes, tree
from wharfie.spi.call import progress
from wharfie.spi.driver import Context, Fault, FileDescriptor, Problem, Strings, Usage
from wharfie.spi.errors import Conflict, InvalidArgument, NotFound, OutOfSpace, Unsupported, from_os_error
from wharfie.spi.inroot import FOLDER, syncfs
from wharfie.spi.storage import Change, Layer, Mount, SnapshotOptions, StorageCapability, StorageDriver
from wharfie.spi.tar import OPAQUE_XATTR, Whiteouts, unpack
from wharfie.spi.tree import Tree
from wharfie_storage_overlay import host
from wharfie_storage_overlay.settle import Pending, settle
from wharfie_storage_overlay.store import Record, Store, short_name

DEPTH_LIMIT = 128
"""Layers below one snapshot: as many as Docker allows, and as fit into the one page that mount(2) takes."""


class OverlayDriver(StorageDriver):
    """Layers and snapshots for overlayfs."""

    name: ClassVar[str] = "overlay2"
    spi: ClassVar[str] = "1.0"
    settings: ClassVar[str] = "wharfie_storage_overlay.settings:OverlaySettings"

    def __init__(self, context: Context, settings: Any) -> None:
        super().__init__(context, settings)
        self._sync: bool = settings.sync
        self._store = Store(context.state, context.log)
        self._settling = threading.Lock()
        self._applying: dict[str, threading.Event] = {}

    def capabilities(self) -> frozenset[StorageCapability]:
        return frozenset((StorageCapability.PARALLEL_APPLY, StorageCapability.PROMOTE))

    def check(self) -> Sequence[Problem]:
        return host.problems(self._store.state)

    def open(self) -> None:
        self._store.open()

    def close(self) -> None:
        self._store.close()

    def status(self) -> Sequence[tuple[str, str]]:
        return (
            ("Backing Filesystem", host.backing_file_system(self._store.state)),
            ("Supports d_type", "true"),  # `check` refuses a file system without
            ("Using metacopy", "false"),  # these by host.MOUNT_OPTIONS
            ("Native Overlay Diff", "true"),
            ("userxattr", "false"),
        )

    def apply(self, layer: str, parent: str | None, diff: FileDescriptor) -> Layer:
        present = self._store.layer(layer)
        if present is not None:
            if present.parent != parent:
                raise Conflict(f"the layer {layer} is there with the parent {present.parent}, not {parent}")
            return _layer(present)
        with self._under_way(layer), self._store.stage() as folder, _explained(f"apply {layer}"):
            (folder / "diff").mkdir(mode=0o755)
            root = os.open(folder / "diff", FOLDER)
            try:
                os.fchmod(root, 0o755)
                unpacked = unpack(diff, root, Whiteouts.OVERLAY)
                base = _is_opaque(root)
                self._await(parent)
                self._settle_new(root, folder, Pending.of(unpacked), None if base else parent)
                record = Record(name=layer, parent=parent, size=unpacked.size, inodes=unpacked.entries, base=base)
                self._store.write_record(folder, record)
                self._to_disk(root)
            finally:
                os.close(root)
            record = self._store.publish_layer(folder, record)
            self._to_disk_folder(self._store.layer_folder(layer).parent)
        return _layer(record)

    def create(self, key: str, parent: str | None, options: SnapshotOptions) -> None:
        if options.size:
            raise Unsupported(
                f'storage driver "{self.name}" cannot limit the size of a container: leave the option size out'
            )
        if self._store.has_snapshot(key):
            if self._store.parent_of(key) != parent:
                raise Conflict(f"the snapshot {key} is there on another layer than {parent}")
            return
        if self._store.layer(key) is not None:
            raise Conflict(f"a layer is named {key}")
        chain = self._usable_chain(parent)
        with self._store.stage() as folder, _explained(f"create the snapshot {key}"):
            for name in ("diff", "work"):
                (folder / name).mkdir(mode=0o755)
            self._look_like(folder / "diff", chain[0] if chain else None)
            if parent is not None:
                (folder / "parent").symlink_to(f"../../layers/{short_name(parent)}")
            self._store.publish_snapshot(folder, key, parent)

    def mounts(self, key: str) -> tuple[Mount, ...]:
        if self._store.layer(key) is not None:
            return (self._layer_mount(self._visible(self._usable_chain(key))),)
        chain = self._visible(self._usable_chain(self._store.parent_of(key)))
        folder = self._store.snapshot_folder(key)
        if not chain:
            return (Mount(type="bind", source=str(folder / "diff"), options=("bind",)),)
        options = (self._lower(chain), f"upperdir={folder / 'diff'}", f"workdir={folder / 'work'}", *host.MOUNT_OPTIONS)
        return (Mount(type="overlay", source="overlay", options=options),)

    def remove(self, name: str) -> None:
        with _explained(f"remove {name}"):
            self._store.remove(name)

    def layers(self) -> Sequence[Layer]:
        return [_layer(record) for record in self._store.layers()]

    def usage(self, name: str) -> Usage:
        record = self._store.layer(name)
        if record is not None:
            return Usage(size=record.size, inodes=record.inodes)
        self._store.parent_of(name)
        with self._open(self._store.snapshot_folder(name) / "diff") as (root,):
            return tree.usage(root)

    def diff(self, key: str, out: FileDescriptor) -> None:
        upper, chain = self._upper(key)
        with self._open(upper, *map(self._files, chain)) as roots:
            tree.diff(*_trees(roots), out)

    def changes(self, key: str) -> Sequence[Change]:
        upper, chain = self._upper(key)
        with self._open(upper, *map(self._files, chain)) as roots:
            return tree.changes(*_trees(roots))

    def describe(self, key: str) -> Strings:
        upper, chain = self._upper(key)
        rows = {"LowerDir": ":".join(str(self._files(record)) for record in chain)} if chain else {}
        return rows | {
            "MergedDir": str(upper.parent / "merged"),
            "UpperDir": str(upper),
            "WorkDir": str(upper.parent / "work"),
        }

    def promote(self, key: str, layer: str) -> Layer:
        present = self._store.layer(layer)
        if present is not None:
            self._store.remove(key)
            return _layer(present)
        parent = self._store.parent_of(key)
        folder = self._store.snapshot_folder(key)
        with _explained(f"promote the snapshot {key}"), self._open(folder / "diff") as (root,):
            used = tree.usage(root)
            record = Record(name=layer, parent=parent, size=used.size, inodes=used.inodes)
            self._store.write_record(folder, record)
            self._to_disk(root)
            record = self._store.publish_layer(folder, record)
            with self._open(self._store.layer_folder(layer)) as (there,):
                for leftover in (b"work", b"parent"):
                    nodes.remove(there, leftover)
            self._to_disk_folder(self._store.layer_folder(layer).parent)
        return _layer(record)

    def reconcile(self, wanted: frozenset[str]) -> Sequence[Fault]:
        return [Fault(object=name, reason=reason) for name, reason in self._store.keep_only(wanted)]

    # Stacks.

    def _usable_chain(self, name: str | None) -> list[Record]:
        """A layer and all below it, settled. Errors: NotFound, InvalidArgument (too many)."""
        chain = self._store.chain(name)
        if len(chain) > DEPTH_LIMIT:
            raise InvalidArgument(
                f"max depth exceeded: {name} stands on {len(chain) - 1} layers; the limit is {DEPTH_LIMIT}"
            )
        for depth in range(len(chain) - 1, -1, -1):
            self._settle(chain[depth], chain[depth + 1 :])
        return chain

    def _settle(self, record: Record, below: Sequence[Record]) -> None:
        file = self._store.layer_folder(record.name) / "pending.json"
        if not file.exists():
            return
        with self._settling, _explained(f"finish the layer {record.name}"):
            pending = Pending.read(file)
            if pending is not None:
                self._settle_on(self._files(record), pending, () if record.base else below)
                with self._open(file.parent) as (folder,):
                    self._to_disk(folder)
                file.unlink()

    @contextlib.contextmanager
    def _under_way(self, layer: str) -> Iterator[None]:
        """Let the layers above wait for this one: what they take from it is then there."""
        over = threading.Event()
        self._applying[layer] = over
        try:
            yield
        finally:
            if self._applying.get(layer) is over:
                del self._applying[layer]
            over.set()

    def _await(self, layer: str | None) -> None:
        """Until a layer that another thread applies is there, or that failed."""
        over = self._applying.get(layer) if layer is not None else None
        while over is not None and not over.wait(timeout=1):
            progress()

    def _settle_new(self, root: int, folder: Path, pending: Pending, parent: str | None) -> None:
        """Settle a layer that is being made, or when a layer below it is missing, write down what is to do."""
        try:
            chain = self._usable_chain(parent)
        except NotFound:
            pending.write(folder / "pending.json")
            return
        self._settle_on(folder / "diff", pending, chain)

    def _settle_on(self, files: Path, pending: Pending, chain: Sequence[Record]) -> None:
        with self._open(files, *map(self._files, self._visible(chain))) as (root, *below):
            settle(root, pending, below)

    @staticmethod
    def _visible(chain: Sequence[Record]) -> list[Record]:
        """Overlayfs does not look at the mark on a layer's root, so what it hides is left out of the stack."""
        for depth, record in enumerate(chain):
            if record.base:
                return list(chain[: depth + 1])
        return list(chain)

    def _files(self, record: Record) -> Path:
        return self._store.layer_folder(record.name) / "diff"

    def _upper(self, key: str) -> tuple[Path, list[Record]]:
        """The folder of a snapshot's or layer's own files, and the layers that are visible below."""
        record = self._store.layer(key)
        if record is not None:
            visible = self._visible(self._usable_chain(key))
            return self._files(record), visible[1:]
        chain = self._usable_chain(self._store.parent_of(key))
        return self._store.snapshot_folder(key) / "diff", self._visible(chain)

    def _lower(self, chain: Sequence[Record]) -> str:
        return "lowerdir=" + ":".join(str(self._store.link(record.name)) for record in chain)

    def _layer_mount(self, chain: Sequence[Record]) -> Mount:
        if len(chain) == 1:
            return Mount(type="bind", source=str(self._files(chain[0])), options=("bind", "ro"))
        return Mount(type="overlay", source="overlay", options=("ro", self._lower(chain), *host.MOUNT_OPTIONS))

    def _look_like(self, folder: Path, top: Record | None) -> None:
        """The upper folder is the root that the container sees: with the owner, mode and times of the image's."""
        with self._open(folder) as (target,):
            os.fchmod(target, 0o755)
            if top is not None:
                with self._open(self._files(top)) as (source,):
                    entry = nodes.read_entry(source, b".", os.fstat(source))
                if entry is not None:
                    nodes.dress(target, entry)

    # Descriptors and disks.

    @staticmethod
    @contextlib.contextmanager
    def _open(*folders: Path) -> Iterator[list[int]]:
        with contextlib.ExitStack() as stack:
            roots: list[int] = []
            for folder in folders:
                roots.append(os.open(folder, FOLDER))
                stack.callback(os.close, roots[-1])
            yield roots

    def _to_disk(self, fd: int) -> None:
        """One syncfs(2) for a whole layer: an fsync(2) for each file would take longer than unpacking it.

        It may take minutes, without being stuck: a thread waits for it while this one says so.
        """
        if not self._sync:
            return
        outcome: list[OSError] = []
        own = os.dup(fd)

        def wait() -> None:
            try:
                syncfs(own)
            except OSError as error:
                outcome.append(error)
            finally:
                os.close(own)

        waiting = threading.Thread(target=wait, name="overlay2-syncfs", daemon=True)
        waiting.start()
        while waiting.is_alive():
            waiting.join(timeout=1)
            progress()
        if outcome:
            raise outcome[0]

    def _to_disk_folder(self, folder: Path) -> None:
        if self._sync:
            with self._open(folder) as (fd,):
                os.fsync(fd)


def _trees(roots: Sequence[int]) -> tuple[Tree | None, Tree]:
    below = roots[1:]
    return (Tree(*below, overlay=True) if below else None), Tree(*roots, overlay=True)


def _layer(record: Record) -> Layer:
    return Layer(name=record.name, parent=record.parent, size=record.size)


def _is_opaque(root: int) -> bool:
    return OPAQUE_XATTR in os.listxattr(root)


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Say in an error of the operating system what was being done."""
    try:
        yield
    except OSError as error:
        known = from_os_error(error)
        if isinstance(known, OutOfSpace):
            raise OutOfSpace(f"{what}: the disk is full ({error}); remove unused images and containers") from error
        raise type(known)(f"{what}: {error}", details=known.details) from error
