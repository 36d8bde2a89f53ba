"""The driver `btrfs`: each layer and snapshot is a subvolume, begun as a snapshot of its parent's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from wharfie.spi.call import progress
from wharfie.spi.driver import Context, Problem
from wharfie.spi.errors import Conflict, Unsupported
from wharfie.spi.inroot import syncfs
from wharfie.spi.storage import Layer, StorageCapability
from wharfie.spi.whole_trees import Record, WholeTreeDriver, opened
from wharfie_storage_btrfs import subvolumes


class BtrfsDriver(WholeTreeDriver):
    """Layers and snapshots as subvolumes."""

    name: ClassVar[str] = "btrfs"
    spi: ClassVar[str] = "1.0"

    def __init__(self, context: Context, settings: Any) -> None:
        super().__init__(context, settings)
        self._state = context.state

    def capabilities(self) -> frozenset[StorageCapability]:
        return frozenset({StorageCapability.PROMOTE})

    def check(self) -> Sequence[Problem]:
        if os.geteuid() != 0:
            return [Problem(what="not allowed to remove subvolumes", fix="run wharfied as root, with CAP_SYS_ADMIN")]
        with opened(self._state) as folder:
            if subvolumes.on_btrfs(folder):
                return []
        fix = 'move data-root to btrfs, or set "storage-driver" to another one'
        return [Problem(what=f"{self._state} is not on btrfs", fix=fix)]

    def begin(self, folder: Path, source: Path | None) -> None:
        with opened(folder.parent) as staging:
            if source is None:
                subvolumes.create(staging, folder.name)
                (folder / "files").mkdir()
                (folder / "files").chmod(0o755)  # whatever the umask
                return
            with opened(source) as below:
                subvolumes.snapshot(below, staging, folder.name)

    def destroy(self, where: int, name: str) -> None:
        subvolumes.destroy(where, name)

    def settle(self, root: int) -> None:
        progress()
        syncfs(root)

    def inspect(self, folder: Path) -> None:
        if not subvolumes.is_subvolume(folder.stat()):
            raise ValueError("it is a plain folder, not a subvolume: was it copied here?")

    def promote(self, key: str, layer: str) -> Layer:
        record = self.known(layer)
        if record is None:
            snapshot = self.record(key)
            if snapshot.kind != "snapshot":
                raise Conflict(f"{key} is a layer already")
            with opened(self.folder(key)) as own:
                if subvolumes.nested(own):
                    raise Unsupported(f"{key} has subvolumes of its own, which a layer cannot hold: use diff and apply")
            new = Record(name=layer, kind="layer", parent=snapshot.parent, size=self.usage(key).size)
            # Of the snapshot, not itself: until the layer is there whole, the snapshot stays what it was.
            with self.stage(key) as folder, opened(folder) as root:
                syncfs(root)
                record = self.publish(folder, new)
        if record.kind != "layer":
            raise Conflict(f"{layer} is there as a {record.kind}")
        self.remove(key)
        return record.layer
