"""The tar of `docker load` as files by name: where each begins in the spooled body. Nothing is unpacked; names are keys."""

from __future__ import annotations

import asyncio
import hashlib
import os
import posixpath
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor

from wharfie.engine.images.decode import HEAD, decoded, is_compressed
from wharfie.spi.errors import InvalidArgument
from wharfie.spi.tarformat import FOLDER, HARD_LINK, REGULAR, SYMLINK, Entry, Reader
from wharfie.store.content import ContentStore, Spool

_CHUNK = 1 << 20
_ENTRY_LIMIT = 100_000
_LINK_LIMIT = 8


async def pour(body: AsyncIterator[bytes], spool: Spool, executor: Executor) -> None:
    """Write a request's body to the disk. Errors: OutOfSpace."""
    loop = asyncio.get_running_loop()
    pieces: list[bytes] = []
    waiting = 0
    async for piece in body:
        pieces.append(piece)
        waiting += len(piece)
        if waiting >= _CHUNK:
            await loop.run_in_executor(executor, spool.write, b"".join(pieces))
            pieces, waiting = [], 0
    if pieces:
        await loop.run_in_executor(executor, spool.write, b"".join(pieces))


def decompress(store: ContentStore, spool: Spool, what: str) -> Spool:
    """The spool itself when it holds no compressed stream, else a new one with the content. Errors: InvalidArgument,
    OutOfSpace."""
    with os.fdopen(os.dup(spool.descriptor), "rb") as file:
        file.seek(0)
        if not is_compressed(file.read(HEAD)):
            return spool
        file.seek(0)
        plain = store.spool()
        try:
            for piece in decoded(file, what):
                plain.write(piece)
        except BaseException:
            plain.discard()
            raise
        return plain


class Archive:
    """An archive that was read once. All methods block on the disk."""

    def __init__(self, spool: Spool) -> None:
        """Errors: InvalidArgument (not a tar, truncated)."""
        self._descriptor = spool.descriptor
        self._files: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        reader = Reader(self._descriptor)
        for entry in reader:
            self._note(entry, reader.offset)

    def _note(self, entry: Entry, offset: int) -> None:
        if len(self._files) + len(self._links) >= _ENTRY_LIMIT:
            raise InvalidArgument(f"the archive has more than {_ENTRY_LIMIT} entries")
        name = _clean(entry.path)
        if entry.kind == REGULAR and entry.sparse is None:
            self._files[name] = (offset, entry.size)
        elif entry.kind == HARD_LINK:
            self._links[name] = _clean(entry.link)
        elif entry.kind == SYMLINK:
            self._links[name] = _clean(os.fsencode(posixpath.join(posixpath.dirname(name), os.fsdecode(entry.link))))
        elif entry.kind != FOLDER:
            raise InvalidArgument(f"the archive has an entry {name!r} that is no file, folder or link")

    @property
    def files(self) -> list[str]:
        """Names of all files, in the order of the archive."""
        return list(self._files)

    def find(self, name: str) -> str | None:
        """The file that `name` is or leads to; None when there is none."""
        at = _clean(name.encode())
        for _ in range(_LINK_LIMIT):
            if at in self._files:
                return at
            if at not in self._links:
                return None
            at = self._links[at]
        return None

    def size(self, name: str) -> int:
        """Errors: InvalidArgument (no such file)."""
        return self._place(name)[1]

    def read(self, name: str, limit: int) -> bytes:
        """A small file. Errors: InvalidArgument (no such file, longer than `limit`)."""
        offset, size = self._place(name)
        if size > limit:
            raise InvalidArgument(f"{name} in the archive has {size} bytes; the limit is {limit}")
        return os.pread(self._descriptor, size, offset)

    def pieces(self, name: str) -> Iterator[memoryview]:
        """A file in pieces; each is overwritten by the next. Errors: InvalidArgument (no such file)."""
        offset, size = self._place(name)
        buffer = memoryview(bytearray(_CHUNK))
        while size:
            count = os.preadv(self._descriptor, [buffer[: min(size, _CHUNK)]], offset)
            if not count:
                raise InvalidArgument(f"{name} in the archive is cut off")
            yield buffer[:count]
            offset += count
            size -= count

    def digest(self, name: str) -> str:
        hasher = hashlib.sha256()
        for piece in self.pieces(name):
            hasher.update(piece)
        return "sha256:" + hasher.hexdigest()

    def head(self, name: str) -> bytes:
        """The first bytes, which tell a file's compression."""
        offset, size = self._place(name)
        return os.pread(self._descriptor, min(size, HEAD), offset)

    def _place(self, name: str) -> tuple[int, int]:
        found = self.find(name)
        if found is None:
            raise InvalidArgument(f"open {name}: no such file or directory in the archive")
        return self._files[found]


def _clean(path: bytes) -> str:
    """A name relative to the archive's root; what climbs above it stays at it."""
    return posixpath.normpath("/" + os.fsdecode(path)).lstrip("/")
