"""The driver `vfs`: each layer and snapshot is a plain folder, copied from its parent's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import ClassVar

from wharfie.spi import nodes
from wharfie.spi.call import progress
from wharfie.spi.errors import DriverError, OutOfSpace
from wharfie.spi.storage import StorageCapability
from wharfie.spi.whole_trees import WholeTreeDriver


class VfsDriver(WholeTreeDriver):
    """Layers and snapshots as plain folders."""

    name: ClassVar[str] = "vfs"
    spi: ClassVar[str] = "1.0"

    def capabilities(self) -> frozenset[StorageCapability]:
        return frozenset()

    def begin(self, folder: Path, source: Path | None) -> None:
        folder.mkdir()
        files = folder / "files"
        if source is None:
            files.mkdir()
            files.chmod(0o755)  # whatever the umask
        else:
            _copy(source / "files", files)

    def destroy(self, where: int, name: str) -> None:
        nodes.remove(where, name.encode())


def _copy(source: Path, target: Path) -> None:
    """cp(1) knows reflinks, holes, hard links and attributes; it is no program of a container's. Errors: OutOfSpace."""
    command = ["cp", "--archive", "--reflink=auto", "--no-target-directory", str(source), str(target)]
    with subprocess.Popen(command, env={**os.environ, "LC_ALL": "C"}, stderr=subprocess.PIPE, text=True) as copying:
        try:
            while True:
                try:
                    _, said = copying.communicate(timeout=1)
                    break
                except subprocess.TimeoutExpired:
                    progress()
        except BaseException:
            copying.kill()
            raise
    if copying.returncode:
        kind = OutOfSpace if "No space left" in said else DriverError
        raise kind(f"copying {source}: {said.strip().splitlines()[0] if said.strip() else copying.returncode}")
