"""Files and their changes as a tar on its way to a descriptor."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from wharfie.spi import tarformat
from wharfie.spi.call import progress
from wharfie.spi.tar import WHITEOUT
from wharfie.spi.tarformat import BLOCK, Entry

if TYPE_CHECKING:
    from wharfie.spi.tree import Difference, Node

_CHUNK: Final = 1 << 20


class Writer:
    """One archive. `literal`: names that would be whiteouts in a layer are names like any other.

    Errors of all methods: OSError (of reading the files, BrokenPipeError of writing).
    """

    def __init__(self, out: int, *, literal: bool = False) -> None:
        self._out = out
        self._literal = literal
        self._waiting = bytearray()
        self._links: dict[tuple[int, int], bytes] = {}  # the first name of each file that has several

    def add(self, difference: Difference, name: bytes | None = None) -> None:
        """What differs, as an entry; `name` in the archive when it is not the path. What vanished meanwhile is left out."""
        parent, slash, last = difference.path.rpartition(b"/")
        if not self._literal and b"/" + WHITEOUT in b"/" + difference.path:
            return
        if difference.node is None:
            self._put(tarformat.header(Entry(path=parent + slash + WHITEOUT + last)))
            return
        try:
            entry = difference.node.entry()
        except (FileNotFoundError, NotADirectoryError):
            return
        if entry is None:
            return
        if name is not None:
            entry.path = name
        facts = difference.node.facts
        if entry.kind == tarformat.FOLDER:
            entry.path = entry.path.rstrip(b"/") + b"/"
        elif facts.st_nlink > 1:
            first = self._links.setdefault((facts.st_dev, facts.st_ino), entry.path)
            if first != entry.path:
                entry.kind, entry.link, entry.size, entry.xattrs = tarformat.HARD_LINK, first, 0, {}
        if entry.kind == tarformat.REGULAR:
            self._add_file(difference.node, entry)
        else:
            self._put(tarformat.header(entry))

    def finish(self) -> None:
        """Write the end of the archive, and all that waits."""
        self._put(tarformat.trailer())
        self._flush()

    def _add_file(self, node: Node, entry: Entry) -> None:
        try:
            file = node.open()
        except (FileNotFoundError, NotADirectoryError):
            self._links = {key: path for key, path in self._links.items() if path != entry.path}
            return
        try:
            entry.size = os.fstat(file).st_size
            self._put(tarformat.header(entry))
            left = entry.size
            while left:
                # A file that has shrunk meanwhile is filled up with zeros, as GNU tar does: its size has been said.
                piece = os.read(file, min(left, _CHUNK)) or bytes(min(left, _CHUNK))
                progress()
                self._put(piece)
                left -= len(piece)
            self._put(bytes(-entry.size % BLOCK))
        finally:
            os.close(file)

    def _put(self, data: bytes) -> None:
        self._waiting += data
        if len(self._waiting) >= _CHUNK:
            self._flush()

    def _flush(self) -> None:
        view = memoryview(self._waiting)
        at = 0
        while at < len(view):
            at += os.write(self._out, view[at:])
        view.release()
        self._waiting.clear()
