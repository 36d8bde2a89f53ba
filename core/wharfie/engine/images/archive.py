"""The tar of `docker load` as files by name, taken apart while it comes in. Nothing is unpacked; names are keys."""

from __future__ import annotations

import asyncio
import hashlib
import os
import posixpath
from collections.abc import AsyncIterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from wharfie.engine.files.plain import plain
from wharfie.engine.images import pipes
from wharfie.engine.images.decode import HEAD
from wharfie.spi.errors import InvalidArgument
from wharfie.spi.tarformat import FOLDER, HARD_LINK, REGULAR, SYMLINK, Reader
from wharfie.store.content import ContentStore, Spool

_CHUNK = 1 << 20
_ENTRY_LIMIT = 100_000
_LINK_LIMIT = 8
_SMALL = 1 << 16
"""Files up to this size share one spool."""


async def pour(body: AsyncIterator[bytes], spool: Spool, executor: Executor) -> None:
    """Write a request's body to the disk, decompressed when it is compressed. Errors: InvalidArgument, OutOfSpace."""
    async for piece in _gathered(plain(body)):
        await asyncio.get_running_loop().run_in_executor(executor, spool.write, piece)


async def take_apart(body: AsyncIterator[bytes], archive: Archive) -> None:
    """Read a request's body, compressed or not, into `archive`. Errors: those of `Archive.take_in`.

    Threads of its own: a client that sends slowly holds up nobody else.
    """
    loop = asyncio.get_running_loop()
    reading, writing = pipes.pipe()
    os.set_blocking(writing, False)
    stop = pipes.Stop()
    threads = ThreadPoolExecutor(2, thread_name_prefix="load")
    taking = loop.run_in_executor(threads, _take_in, archive, reading)
    try:
        async for piece in _gathered(plain(body)):
            if not taking.done():  # else it failed, and the client may send the rest before it hears of it
                await _write(threads, writing, piece, stop)
    finally:
        os.close(writing)
        threads.shutdown(wait=False)
        await asyncio.wait([taking])
    taking.result()


async def _gathered(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """In larger pieces: each costs a way to a thread and back."""
    pieces: list[bytes] = []
    waiting = 0
    async for piece in body:
        pieces.append(piece)
        waiting += len(piece)
        if waiting >= _CHUNK:
            yield b"".join(pieces)
            pieces, waiting = [], 0
    if pieces:
        yield b"".join(pieces)


async def _write(threads: Executor, writing: int, piece: bytes, stop: pipes.Stop) -> None:
    writes = asyncio.get_running_loop().run_in_executor(threads, pipes.write_all, writing, piece, stop)
    try:
        await asyncio.shield(writes)
    except BrokenPipeError:
        return  # whoever reads has failed, and says why
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([writes])
        writes.exception()
        raise


def _take_in(archive: Archive, reading: int) -> None:
    try:
        archive.take_in(reading)
    finally:
        os.close(reading)


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the archive: in a spool of its own, or when it is small, from `offset` on in the one of all small ones."""

    size: int
    spool: Spool
    offset: int
    digest: str = ""


class Archive:
    """The files of an archive, taken apart as it comes in. All methods block on the disk."""

    def __init__(self, store: ContentStore) -> None:
        self._store = store
        self._small = store.spool()
        self._files: dict[str, _File] = {}
        self._links: dict[str, str] = {}
        self._copies: list[Spool] = []

    def take_in(self, source: int) -> None:
        """Read the archive, plain, from a descriptor. Errors: InvalidArgument (not a tar, truncated), OutOfSpace."""
        reader = Reader(source)
        for entry in reader:
            if len(self._files) + len(self._links) >= _ENTRY_LIMIT:
                raise InvalidArgument(f"the archive has more than {_ENTRY_LIMIT} entries")
            name = _clean(entry.path)
            if entry.kind == REGULAR and entry.sparse is None:
                before = self._files.get(name)
                self._files[name] = self._file(reader, entry.size)
                if before is not None and before.spool is not self._small:
                    before.spool.discard()
            elif entry.kind == HARD_LINK:
                self._links[name] = _clean(entry.link)
            elif entry.kind == SYMLINK:
                target = posixpath.join(posixpath.dirname(name), os.fsdecode(entry.link))
                self._links[name] = _clean(os.fsencode(target))
            elif entry.kind != FOLDER:
                raise InvalidArgument(f"the archive has an entry {name!r} that is no file, folder or link")

    def _file(self, reader: Reader, size: int) -> _File:
        if size <= _SMALL:
            file = _File(size, self._small, self._small.size)
            for piece in reader.pieces(size):
                self._small.write(piece)
            return file
        spool = self._store.spool()
        hasher = hashlib.sha256()
        try:
            for piece in reader.pieces(size):
                hasher.update(piece)
                spool.write(piece)
        except BaseException:
            spool.discard()
            raise
        spool.rest()
        return _File(size, spool, 0, f"sha256:{hasher.hexdigest()}")

    def discard(self) -> None:
        """Remove what was not kept."""
        self._small.discard()
        for spool in (*self._copies, *(file.spool for file in self._files.values())):
            spool.discard()

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
        return self._file_of(name).size

    def read(self, name: str, limit: int) -> bytes:
        """A small file. Errors: InvalidArgument (no such file, longer than `limit`)."""
        file = self._file_of(name)
        if file.size > limit:
            raise InvalidArgument(f"{name} in the archive has {file.size} bytes; the limit is {limit}")
        return self._first(file, file.size)

    def digest(self, name: str) -> str:
        """Of its content. Errors: InvalidArgument (no such file)."""
        file = self._file_of(name)
        return file.digest or "sha256:" + hashlib.sha256(self._first(file, file.size)).hexdigest()

    def head(self, name: str) -> bytes:
        """The first bytes, which tell a file's compression. Errors: InvalidArgument (no such file)."""
        file = self._file_of(name)
        return self._first(file, min(file.size, HEAD))

    def path(self, name: str) -> Path:
        """Where the file is by itself, until `discard`. Errors: InvalidArgument (no such file), OutOfSpace."""
        file = self._file_of(name)
        if file.spool is not self._small:
            return file.spool.path
        self._copies.append(self._store.spool())
        self._copies[-1].write(self._first(file, file.size))
        self._copies[-1].rest()
        return self._copies[-1].path

    def keep(self, name: str) -> None:
        """Make the file a blob of the content store. May be repeated. Errors: InvalidArgument (no such file)."""
        file = self._file_of(name)
        if file.digest:
            if self._store.size(file.digest) != file.size:
                file.spool.commit(file.digest)
        else:
            self._store.put(self._first(file, file.size))

    def _first(self, file: _File, count: int) -> bytes:
        if file.spool is self._small:
            return os.pread(self._small.descriptor, count, file.offset)
        return file.spool.first(count)

    def _file_of(self, name: str) -> _File:
        found = self.find(name)
        if found is None:
            raise InvalidArgument(f"open {name}: no such file or directory in the archive")
        return self._files[found]


def _clean(path: bytes) -> str:
    """A name relative to the archive's root; what climbs above it stays at it."""
    return posixpath.normpath("/" + os.fsdecode(path)).lstrip("/")
