"""What a layer has to take from the layers below it, once they are there.

A layer's tar need not describe the folders on the way to its files, and it may hard-link to a file of a layer below. In
the layer's own folder, which overlayfs puts on top of the others, such a folder would hide the owner and mode that it has
below, and such a link cannot be made. So both are noted while the layer is unpacked, maybe before its parents, and
settled before its first use: the folder gets the looks that it has below, the linked file is copied up. (Docker leaves
such folders as root's with mode 0755, and refuses such links.)
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wharfie.spi import nodes, tarformat
from wharfie.spi.errors import InvalidArgument
from wharfie.spi.inroot import FOLDER, open_in_root
from wharfie.spi.tar import Unpacked, show
from wharfie.spi.tree import Node, Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """As in `wharfie.spi.tar.Unpacked`."""

    implied: tuple[bytes, ...] = ()
    borrowed: tuple[tuple[bytes, bytes], ...] = ()

    @classmethod
    def of(cls, unpacked: Unpacked) -> Pending:
        return cls(implied=unpacked.implied, borrowed=unpacked.borrowed)

    @classmethod
    def read(cls, file: Path) -> Pending | None:
        """What is still to do; None when nothing is."""
        try:
            stored = json.loads(file.read_text())
        except FileNotFoundError:
            return None
        return cls(
            implied=tuple(map(os.fsencode, stored["implied"])),
            borrowed=tuple((os.fsencode(path), os.fsencode(target)) for path, target in stored["borrowed"]),
        )

    def write(self, file: Path) -> None:
        stored = {
            "implied": [os.fsdecode(path) for path in self.implied],
            "borrowed": [[os.fsdecode(path), os.fsdecode(target)] for path, target in self.borrowed],
        }
        file.write_text(json.dumps(stored))


def settle(root: int, pending: Pending, below: Tree | None) -> None:
    """Finish the layer in the folder `root` with what the tree `below` has (None: there is nothing). May be repeated.

    Errors: InvalidArgument (a hard link to nothing), OSError.
    """
    for path in pending.implied:
        node = below.find(path) if below is not None else None
        if node is not None and node.is_folder:
            _dress(root, path, node)
    for path, target in pending.borrowed:
        node = below.find(target) if below is not None else None
        if node is None or node.is_folder:
            raise InvalidArgument(f"the entry {show(path)} is a hard link to {show(target)}, which no layer has")
        _link(root, path, target, node, below)


def _dress(root: int, path: bytes, node: Node) -> None:
    entry = node.entry()
    try:
        folder = open_in_root(root, path, FOLDER | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return  # a later entry of the layer replaced it
    try:
        if entry is not None:
            nodes.dress(folder, entry)
    finally:
        os.close(folder)


def _link(root: int, path: bytes, target: bytes, node: Node, below: Tree | None) -> None:
    with _parent(root, target, below) as (source, source_name), _parent(root, path, below) as (folder, name):
        if not _exists(source, source_name):
            _copy(source, source_name, node)
        if not _exists(folder, name):  # else a later entry took the name
            os.link(source_name, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)


@contextmanager
def _parent(root: int, path: bytes, below: Tree | None) -> Iterator[tuple[int, bytes]]:
    """The folder that `path` is in, made like the one below when missing, and the last name. Its times stay."""
    *parents, name = path.split(b"/")
    folder = os.open(b".", FOLDER, dir_fd=root)
    try:
        so_far = b""
        for part in parents:
            so_far = so_far + b"/" + part if so_far else part
            try:
                os.mkdir(part, 0o755, dir_fd=folder)
                node = below.find(so_far) if below is not None else None
                if node is not None and node.is_folder:
                    _dress(root, so_far, node)
            except FileExistsError:
                pass
            inner = open_in_root(root, so_far, FOLDER)
            os.close(folder)
            folder = inner
        times = os.fstat(folder)
        yield folder, name
        os.utime(folder, ns=(times.st_atime_ns, times.st_mtime_ns))
    finally:
        os.close(folder)


def _exists(folder: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _copy(folder: int, name: bytes, node: Node) -> None:
    entry = node.entry()
    if entry is None:
        raise InvalidArgument(f"a hard link to {show(node.path)}, which is a socket")
    if entry.kind != tarformat.REGULAR:
        nodes.place(folder, name, entry, lambda file: None)
        return
    source = node.open()
    try:
        nodes.place(folder, name, entry, lambda file: nodes.copy_data(source, file))
    finally:
        os.close(source)
