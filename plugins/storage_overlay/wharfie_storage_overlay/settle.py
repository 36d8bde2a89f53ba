"""What a layer has to take from the layers below it, once they are there.

A layer's tar need not describe the folders on the way to its files, and it may hard-link to a file of a layer below. In
the layer's own folder, which overlayfs puts on top of the others, such a folder would hide the owner and mode that it has
below, and such a link cannot be made. So both are noted while the layer is unpacked, maybe before its parents, and
settled before its first use: the folder gets the looks that it has below, the linked file is copied up. (Docker leaves
such folders as root's with mode 0755, and refuses such links.)

Nor does overlayfs look for whiteouts in a folder that only one layer has: it would list them. Those, which hide nothing,
are removed.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wharfie.spi import nodes, tarformat
from wharfie.spi.errors import InvalidArgument
from wharfie.spi.inroot import FOLDER, open_in_root
from wharfie.spi.tar import Unpacked, is_whiteout, show
from wharfie.spi.tree import Node, Place, Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """As in `wharfie.spi.tar.Unpacked`."""

    implied: tuple[bytes, ...] = ()
    borrowed: tuple[tuple[bytes, bytes], ...] = ()
    hidden: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, unpacked: Unpacked) -> Pending:
        return cls(implied=unpacked.implied, borrowed=unpacked.borrowed, hidden=unpacked.hidden)

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
            hidden=tuple(map(os.fsencode, stored["hidden"])),
        )

    def write(self, file: Path) -> None:
        stored = {
            "implied": [os.fsdecode(path) for path in self.implied],
            "borrowed": [[os.fsdecode(path), os.fsdecode(target)] for path, target in self.borrowed],
            "hidden": [os.fsdecode(path) for path in self.hidden],
        }
        file.write_text(json.dumps(stored))


def settle(root: int, pending: Pending, layers_below: Sequence[int]) -> None:
    """Finish the layer in the folder `root` with what the layers below have, uppermost first. May be repeated.

    Errors: InvalidArgument (a hard link to nothing), OSError.
    """
    layer = _Layer(root, layers_below)
    for path in pending.implied:
        layer.dress(path)
    for path, target in pending.borrowed:
        layer.link(path, target)
    for path in pending.hidden:
        layer.drop_if_needless(path)


class _Layer:
    """A layer's folder on top of the layers below."""

    def __init__(self, root: int, layers_below: Sequence[int]) -> None:
        self._root = root
        self._tree = Tree(root, *layers_below, overlay=True)

    def dress(self, path: bytes) -> None:
        """Let a folder look as it does below."""
        node = self._beneath(path)
        entry = node.entry() if node is not None and node.is_folder else None
        if entry is None:
            return
        try:
            folder = open_in_root(self._root, path, FOLDER | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return  # a later entry of the layer replaced it
        try:
            nodes.dress(folder, entry)
        finally:
            os.close(folder)

    def link(self, path: bytes, target: bytes) -> None:
        """Make the hard link `path`, its target copied up when it is not here yet."""
        with self._parent(target) as (source, source_name), self._parent(path) as (folder, name):
            if not _exists(source, source_name):
                node = self._beneath(target)
                if node is None or node.is_folder:
                    raise InvalidArgument(f"the entry {show(path)} is a hard link to {show(target)}, which no layer has")
                _copy(source, source_name, node)
            elif stat.S_ISDIR(os.stat(source_name, dir_fd=source, follow_symlinks=False).st_mode):
                raise InvalidArgument(f"the entry {show(path)} is a hard link to {show(target)}, which is a folder")
            if not _exists(folder, name):  # else a later entry took the name
                os.link(source_name, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)

    def drop_if_needless(self, path: bytes) -> None:
        """Remove a whiteout from a folder that only this layer has."""
        parent, _, name = path.rpartition(b"/")
        if self._place(parent).roots != (self._root,):
            return
        with self._parent(path) as (folder, _):
            if _exists(folder, name) and is_whiteout(os.stat(name, dir_fd=folder, follow_symlinks=False)):
                os.unlink(name, dir_fd=folder)

    def _place(self, path: bytes) -> Place:
        """Where the content of a folder lies, as overlayfs would look for it."""
        place = self._tree.top
        for name in path.split(b"/") if path else ():
            place = self._tree.enter(place, name)
        return place

    def _beneath(self, path: bytes) -> Node | None:
        """What would be visible at `path` if this layer did not have it."""
        if not path:
            roots = self._tree.top.roots[1:2]
            return Node(root=roots[0], path=b"", facts=os.fstat(roots[0])) if roots else None
        parent, _, name = path.rpartition(b"/")
        place = self._place(parent)
        below = tuple(root for root in place.roots if root != self._root)
        return self._tree.child(Place(place.path, below), name)

    @contextmanager
    def _parent(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """The folder that `path` is in, made like the one below when missing, and the last name. Its times stay."""
        *parents, name = path.split(b"/")
        folder = os.open(b".", FOLDER, dir_fd=self._root)
        try:
            so_far = b""
            for part in parents:
                so_far = so_far + b"/" + part if so_far else part
                if not _exists(folder, part):
                    os.mkdir(part, 0o755, dir_fd=folder)
                    self.dress(so_far)
                inner = open_in_root(self._root, so_far, FOLDER)
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
