"""Folders of artifacts: packed for a push, and written by a pull, which never follows a link."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class _Hashing(io.RawIOBase):
    """Passes on what is written, and hashes it."""

    def __init__(self, out: gzip.GzipFile) -> None:
        self._out = out
        self._hash = hashlib.sha256()

    def write(self, data: ReadableBuffer, /) -> int:
        self._hash.update(data)
        return self._out.write(data)

    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()


def pack(folder: Path, name: str, out: IO[bytes]) -> str:
    """Write a folder to `out` as oras does, a compressed tar in which everything is below `name`; the digest of the tar.

    The same content gives the same bytes, except for times of change. Errors: click.ClickException (a device, a socket).
    """

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        if not (entry.isreg() or entry.isdir() or entry.issym() or entry.islnk()):
            raise click.ClickException(f"{entry.name} is no file, folder or link, and cannot be in an artifact")
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = int(entry.mtime)
        return entry

    with gzip.GzipFile(filename="", fileobj=out, mode="wb", mtime=0) as packed:
        hashing = _Hashing(packed)
        with tarfile.open(fileobj=hashing, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            tar.add(folder.resolve(), arcname=name, filter=plain)  # which goes by the order of names
    return hashing.digest()


class Target:
    """A folder that files are written into, and nothing outside of it. `close` it."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._root)

    def write(self, entry: tarfile.TarInfo, content: IO[bytes] | None) -> None:
        """Make what the entry says, in place of a file of that name. Errors: click.ClickException (not within the folder,
        a link on the way, an entry of another kind)."""
        parts = [part for part in entry.name.split("/") if part not in ("", ".")]
        if entry.name.startswith("/") or ".." in parts or not parts:
            raise click.ClickException(f"{entry.name!r} leads out of the folder")
        with self._folder(parts[:-1], entry.name) as folder:
            if entry.isdir():
                with contextlib.suppress(FileExistsError):
                    os.mkdir(parts[-1], 0o777, dir_fd=folder)
                return
            _clear(folder, parts[-1])
            if entry.issym():
                os.symlink(entry.linkname, parts[-1], dir_fd=folder)
            elif entry.islnk():
                self._link(entry, folder, parts[-1])
            elif content is not None:
                with open(os.open(parts[-1], _FILE, 0o666 & (entry.mode | 0o600), dir_fd=folder), "wb") as file:
                    shutil.copyfileobj(content, file, 1 << 20)
                    if entry.mode & stat.S_IXUSR:
                        os.fchmod(file.fileno(), os.fstat(file.fileno()).st_mode | 0o100)

    def _link(self, entry: tarfile.TarInfo, folder: int, name: str) -> None:
        target = [part for part in entry.linkname.split("/") if part not in ("", ".")]
        if ".." in target or not target:
            raise click.ClickException(f"{entry.name!r} is a link that leads out of the folder")
        with self._folder(target[:-1], entry.name) as source:
            os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)

    @contextlib.contextmanager
    def _folder(self, parts: list[str], name: str) -> Iterator[int]:
        """The folder of these names, made where it is missing."""
        at = os.dup(self._root)
        try:
            for part in parts:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o777, dir_fd=at)
                try:
                    below = os.open(part, _FOLDER, dir_fd=at)
                except OSError:
                    raise click.ClickException(f"{name!r}: {part!r} on its way is no folder") from None
                os.close(at)
                at = below
            yield at
        finally:
            os.close(at)


def _clear(folder: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
