"""Mounts that are there for the time of a start: parts of volumes, and images, on their way into a container.

A part of a volume (`volume-subpath`) is found in a folder that containers may be writing to at this very moment. So its
name is resolved by the kernel within the folder, and what was found is bound to a place of ours by its descriptor: the
runtime mounts from there, and nothing can be swapped in between. When the container is made it has mounts of its own, and
these go.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from wharfie.engine.files.mounting import copy_of_foreign, move_mount
from wharfie.shim.root import mount_root
from wharfie.shim.system import MNT_DETACH, MS_BIND, MS_REC, mount, umount2
from wharfie.spi.errors import InvalidArgument, from_os_error
from wharfie.spi.inroot import open_in_root
from wharfie.spi.storage import Mount


class Staging:
    """The places of one start. `root` is a folder for all of them, in which no user's file ever is."""

    def __init__(self, root: Path, owner: str) -> None:
        self._root = root
        self._owner = owner
        self._places: list[Path] = []

    async def part(self, folder: Path, subpath: str) -> Path:
        """A place where `subpath` of `folder` is mounted. Errors: InvalidArgument (it is not there)."""
        return await asyncio.to_thread(self._part, folder, subpath)

    async def image(self, mounts: Sequence[Mount]) -> Path:
        """A place where a layer is mounted. Errors: the kernel's."""
        return await asyncio.to_thread(self._image, mounts)

    async def foreign(self, pid: int, path: str) -> Path:
        """A place where a mount is that the process `pid` sees at `path`. Errors: the kernel's."""
        return await asyncio.to_thread(self._foreign, pid, path)

    async def clear(self) -> None:
        """Take all places away. May be repeated. Errors: OSError."""
        await asyncio.to_thread(self._clear)

    def _part(self, folder: Path, subpath: str) -> Path:
        root = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            found = open_in_root(root, os.fsencode(subpath), os.O_PATH)
        except OSError as error:
            shown = folder / subpath
            raise InvalidArgument(
                f"cannot access path {shown}: lstat {shown}: {os.strerror(error.errno or 0).lower()}"
            ) from error
        finally:
            os.close(root)
        try:
            place = self._place(is_folder=stat.S_ISDIR(os.fstat(found).st_mode))
            mount(f"/proc/self/fd/{found}", str(place), "none", MS_BIND | MS_REC)
        except OSError as error:
            raise from_os_error(error) from error
        finally:
            os.close(found)
        return place

    def _image(self, mounts: Sequence[Mount]) -> Path:
        place = self._place(is_folder=True)
        try:
            mount_root([(entry.type, entry.source, entry.options) for entry in mounts], str(place))
        except OSError as error:
            raise from_os_error(error) from error
        return place

    def _foreign(self, pid: int, path: str) -> Path:
        place = self._place(is_folder=True)
        try:
            tree = copy_of_foreign(pid, path)
            target = os.open(place, os.O_PATH | os.O_CLOEXEC)
            try:
                move_mount(tree, target)
            finally:
                os.close(tree)
                os.close(target)
        except OSError as error:
            raise from_os_error(error) from error
        return place

    def _place(self, *, is_folder: bool) -> Path:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = self._root / f"{self._owner}-{len(self._places)}"
        _remove(place)
        if is_folder:
            place.mkdir(mode=0o700)
        else:
            place.touch(mode=0o600)
        self._places.append(place)
        return place

    def _clear(self) -> None:
        while self._places:
            _remove(self._places[-1])
            self._places.pop()


def clear_staged(root: Path) -> None:
    """After a crash: take away what its starts left. Errors: OSError."""
    if root.exists():
        for place in root.iterdir():
            _remove(place)


def _remove(place: Path) -> None:
    """Nothing is removed but an empty place of ours: what is mounted on it belongs to somebody."""
    while True:
        try:
            umount2(str(place), MNT_DETACH)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            if error.errno != errno.EINVAL:
                raise
            break
    if place.is_dir():
        place.rmdir()
    elif place.stat().st_size == 0:
        with contextlib.suppress(FileNotFoundError):
            place.unlink()
