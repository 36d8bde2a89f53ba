"""Layers and snapshots on the disk: where they are, and how they come and go.

STATE/layers/SHORT/diff          a layer's own files, as overlayfs stacks them; SHORT is made from the layer's name
STATE/layers/SHORT/layer.json    its name, parent and size
STATE/layers/SHORT/pending.json  what it still has to take from the layers below; gone when that is done
STATE/l/SHORT                    a link to the layer's files, short enough for 128 of them in one mount
STATE/snapshots/SHORT/diff,work  a snapshot's own files, and the folder that overlayfs works in
STATE/snapshots/SHORT/parent     a link to the folder of the layer that it stands on
STATE/staging/TOKEN              what is being made
STATE/trash/TOKEN                what is being removed; see `trash`

A layer or snapshot appears by the rename of a folder that is whole, and goes by a rename into the trash: whoever is killed
in between leaves something in `staging` or `trash`, nothing else. A snapshot's parent is a link and not a file because a
link is in the file system's journal together with the folder: no power cut leaves it empty.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import os
import secrets
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from wharfie.spi import nodes
from wharfie.spi.errors import Conflict, NotFound
from wharfie.spi.inroot import FOLDER
from wharfie.spi.placement import spread_out
from wharfie_storage_overlay.trash import Trash


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is written down of a layer. `base`: its root is opaque, so nothing below is visible."""

    name: str
    parent: str | None
    size: int
    inodes: int
    base: bool = False


def short_name(name: str) -> str:
    """26 letters and digits for a name of any length; different ones for different names (130 bits of SHA-256)."""
    return base64.b32encode(hashlib.sha256(name.encode()).digest())[:26].decode()


class Store:
    """The folders below STATE and, in memory, what stands on what. Safe for threads; one store for a STATE."""

    def __init__(self, state: Path, log: logging.Logger) -> None:
        self.state = state
        self._layers_folder, self._links = state / "layers", state / "l"
        self._snapshots_folder = state / "snapshots"
        self._staging = state / "staging"
        self._trash = Trash(state / "trash", log)
        self._lock = threading.Lock()
        self._layers: dict[str, Record] = {}  # by short name
        self._snapshots: dict[str, str | None] = {}  # short names of the snapshot and of its parent
        self._broken: dict[str, str] = {}  # short name → why
        self._in_use: set[str] = set()  # names in `staging` that this process works on

    def open(self) -> None:
        """Make the folders and read what is there."""
        for folder in (self._layers_folder, self._links, self._snapshots_folder, self._staging):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        spread_out(self._staging)
        self._trash.open()
        self._layers, self._snapshots, self._broken = {}, {}, {}
        for folder in self._layers_folder.iterdir():
            try:
                record = Record(**json.loads((folder / "layer.json").read_text()))
                if short_name(record.name) != folder.name:
                    raise ValueError(f"it is the record of {record.name}")
                if not (folder / "diff").is_dir():
                    raise ValueError("its files are gone")
                self._layers[folder.name] = record
            except (OSError, ValueError, TypeError) as error:
                self._broken[folder.name] = f"the layer in {folder} is damaged: {error}; pull or build the image again"
        for folder in self._snapshots_folder.iterdir():
            parent = folder / "parent"
            if not (folder / "diff").is_dir() or not (folder / "work").is_dir():
                self._broken[folder.name] = f"the snapshot in {folder} is damaged: a folder of it is gone"
            else:
                self._snapshots[folder.name] = parent.readlink().name if parent.is_symlink() else None

    def close(self) -> None:
        """End the thread."""
        self._trash.close()

    # Where things are.

    def layer_folder(self, name: str) -> Path:
        return self._layers_folder / short_name(name)

    def snapshot_folder(self, key: str) -> Path:
        return self._snapshots_folder / short_name(key)

    def link(self, name: str) -> Path:
        """The short way to a layer's files."""
        return self._links / short_name(name)

    # What is there.

    def layer(self, name: str) -> Record | None:
        return self._layers.get(short_name(name))

    def layers(self) -> list[Record]:
        with self._lock:
            return sorted(self._layers.values(), key=lambda record: record.name)

    def has_snapshot(self, key: str) -> bool:
        return short_name(key) in self._snapshots

    def parent_of(self, key: str) -> str | None:
        """The layer that a snapshot stands on. Errors: NotFound (the snapshot, or its layer)."""
        short = short_name(key)
        if short not in self._snapshots:
            raise NotFound(f"no such snapshot: {key}")
        parent = self._snapshots[short]
        if parent is None:
            return None
        if parent not in self._layers:
            raise NotFound(f"the layer below the snapshot {key} is gone: {self._broken.get(parent, parent)}")
        return self._layers[parent].name

    def chain(self, name: str | None) -> list[Record]:
        """A layer and all below it, uppermost first; empty for None. Errors: NotFound (any of them)."""
        found: list[Record] = []
        while name is not None:
            record = self.layer(name)
            if record is None:
                above = f", on which {found[-1].name} stands" if found else ""
                raise NotFound(f"no such layer: {name}{above}")
            found.append(record)
            name = record.parent
        return found

    # How they come.

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        """An empty folder to make something in; whatever is still there at the end goes."""
        self._trash.make_room()
        token = secrets.token_hex(8)
        folder = self._staging / token
        self._in_use.add(token)
        try:
            folder.mkdir(mode=0o700)
            yield folder
        finally:
            if folder.exists():
                self._empty(self._staging, [token])
            self._in_use.discard(token)

    def write_record(self, folder: Path, record: Record) -> None:
        temporary = folder / "layer.json.new"
        temporary.write_text(json.dumps(asdict(record)))
        temporary.rename(folder / "layer.json")

    def publish_layer(self, folder: Path, record: Record) -> Record:
        """Make the layer in `folder`, whose record is in there, visible; an equal one that came first wins."""
        short = short_name(record.name)
        with self._lock:
            if short in self._layers:
                return self._layers[short]
            if short in self._snapshots:
                raise Conflict(f"a snapshot is named {record.name}")
            with contextlib.suppress(FileExistsError):
                self._links.joinpath(short).symlink_to(f"../layers/{short}/diff")
            target = self._layers_folder / short
            self._trash.throw(target)  # a damaged one
            folder.rename(target)
            self._layers[short] = record
            self._broken.pop(short, None)
            if folder.parent == self._snapshots_folder:
                self._snapshots.pop(folder.name, None)
        return record

    def publish_snapshot(self, folder: Path, key: str, parent: str | None) -> None:
        """Make the snapshot in `folder` visible. Errors: Conflict (a layer has the name), NotFound (the parent went)."""
        short = short_name(key)
        with self._lock:
            if short in self._layers:
                raise Conflict(f"a layer is named {key}")
            if parent is not None and short_name(parent) not in self._layers:
                raise NotFound(f"no such layer: {parent}")
            target = self._snapshots_folder / short
            self._trash.throw(target)  # a damaged one: one that is whole was found before
            folder.rename(target)
            self._snapshots[short] = short_name(parent) if parent is not None else None
            self._broken.pop(short, None)

    # How they go.

    def remove(self, name: str) -> None:
        """Remove a layer or snapshot, also a damaged one. Succeeds when it is not there. Errors: Conflict."""
        short = short_name(name)
        with self._lock:
            self._refuse_in_use(name, short)
            self._take_away(short)
        self._trash.make_room()

    def keep_only(self, wanted: Iterable[str]) -> list[tuple[str, str]]:
        """Remove all but the `wanted` names and the layers below them, and all leftovers. The wanted names that are not
        whole come back, each with the reason."""
        with self._lock:
            names = {short_name(name): name for name in wanted}
            kept = set(names)
            for short in names:
                below: str | None = short
                if below in self._snapshots:
                    below = self._snapshots[below]
                while below is not None and below in self._layers:
                    kept.add(below)
                    parent = self._layers[below].parent
                    below = short_name(parent) if parent is not None else None
            for short in [*self._snapshots, *self._layers, *self._broken]:
                if short not in kept:
                    self._take_away(short)
            for short in self._layers:
                with contextlib.suppress(FileExistsError):
                    self._links.joinpath(short).symlink_to(f"../layers/{short}/diff")
            for link in self._links.iterdir():
                if link.name not in self._layers:
                    link.unlink()
            faults = [(name, reason) for short, name in names.items() if (reason := self._why_broken(short, name))]
        with self._lock:
            abandoned = [folder.name for folder in self._staging.iterdir() if folder.name not in self._in_use]
        self._empty(self._staging, abandoned)
        self._empty(self.state, [trial.name for trial in self.state.glob(".trial-*")])  # of a killed `check`
        self._trash.take_up()
        self._trash.make_room()
        return faults

    def _why_broken(self, short: str, name: str) -> str | None:
        if short in self._broken:
            return self._broken[short]
        try:
            if short in self._snapshots:
                self.chain(self.parent_of(name))
            else:
                self.chain(name)
        except NotFound as error:
            return error.message
        return None

    def _refuse_in_use(self, name: str, short: str) -> None:
        for record in self._layers.values():
            if record.parent is not None and short_name(record.parent) == short:
                raise Conflict(f"the layer {name} is in use: the layer {record.name} stands on it")
        if short in self._layers and short in self._snapshots.values():
            raise Conflict(f"the layer {name} is in use: a snapshot stands on it")

    def _take_away(self, short: str) -> None:
        """Under the lock. The name is free when this returns; the files go later."""
        self._trash.throw(self._layers_folder / short)
        self._trash.throw(self._snapshots_folder / short)
        self._links.joinpath(short).unlink(missing_ok=True)
        self._layers.pop(short, None)
        self._snapshots.pop(short, None)
        self._broken.pop(short, None)

    @staticmethod
    def _empty(folder: Path, names: Iterable[str]) -> None:
        where = os.open(folder, FOLDER)
        try:
            for name in names:
                nodes.remove(where, name.encode())
        finally:
            os.close(where)
