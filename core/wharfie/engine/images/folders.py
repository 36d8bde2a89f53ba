"""Folders in artifacts: a layer that is a compressed tar of one folder, as oras pushes them.

The layer's title is the folder's name, and every entry is the folder or below it. Two annotations say that it is to be
unpacked, and the digest of the tar itself. What comes from a registry is written by whoever likes to: entries that lie
elsewhere, links that lead out of the folder, and devices are refused before anybody unpacks them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import posixpath
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wharfie.engine.images import pipes
from wharfie.engine.images.decode import decoded
from wharfie.spi.errors import Cancelled, InvalidArgument, WharfieError
from wharfie.spi.tarformat import BLOCK, FOLDER, HARD_LINK, REGULAR, SYMLINK, Entry, Reader, header

UNPACK = "io.deis.oras.content.unpack"
DIGEST = "io.deis.oras.content.digest"


def is_proper(title: str) -> bool:
    """Whether a file of this name is within the folder that it is put into."""
    return bool(title) and not title.startswith("/") and title.isprintable() and ".." not in title.split("/")


async def entries(title: str, blob: Path, digest: str) -> AsyncIterator[bytes]:
    """The folder's entries as a part of a tar, in pieces; `blob`: the layer, `digest`: of the tar in it, empty if unknown.

    Errors: InvalidArgument (not such a tar, an entry that is not the folder's), some after pieces of it.
    """
    run = asyncio.get_running_loop().run_in_executor
    packed, feeding = pipes.pipe()
    clean, writing = pipes.pipe()
    for descriptor in (feeding, writing):
        os.set_blocking(descriptor, False)
    stop = pipes.Stop()
    threads = ThreadPoolExecutor(3, thread_name_prefix="folder")
    work = [run(threads, _feed, blob, title, digest, feeding, stop), run(threads, _check, packed, writing, title, stop)]
    reading = run(threads, os.read, clean, pipes.CHUNK)
    try:
        while piece := await asyncio.shield(reading):
            yield piece
            reading = run(threads, os.read, clean, pipes.CHUNK)
    finally:
        stop.set()
        found = await asyncio.shield(asyncio.gather(*work))
        await asyncio.wait([reading])
        os.close(clean)
        threads.shutdown(wait=False)
    for error in found:
        if error is not None:
            raise error


def _feed(blob: Path, title: str, digest: str, feeding: int, stop: pipes.Stop) -> WharfieError | None:
    hasher = hashlib.sha256()
    try:
        with blob.open("rb", buffering=0) as file, contextlib.closing(_Outlet(feeding, stop)) as outlet:
            for piece in decoded(file, f"the folder {title!r}"):
                hasher.update(piece)
                outlet.write(piece)
    except Cancelled:
        return None
    except WharfieError as error:
        return error
    if digest and "sha256:" + hasher.hexdigest() != digest:
        return InvalidArgument(f"the folder {title!r} unpacks to sha256:{hasher.hexdigest()}, but {DIGEST} says {digest}")
    return None


class _Outlet:
    """The writing end of a pipe whose reader may have had enough: then the rest is only counted by whoever writes."""

    def __init__(self, descriptor: int, stop: pipes.Stop) -> None:
        self._descriptor = descriptor
        self._stop = stop

    def write(self, data: bytes) -> None:
        try:
            pipes.write_all(self._descriptor, data, self._stop)
        except BrokenPipeError:
            raise Cancelled("the reader says why") from None

    def close(self) -> None:
        os.close(self._descriptor)


def _check(packed: int, writing: int, title: str, stop: pipes.Stop) -> WharfieError | None:
    try:
        with contextlib.closing(_Outlet(writing, stop)) as outlet:
            reader = Reader(packed)
            for entry in reader:
                _refuse(entry, title)
                whole = Entry(path=entry.path, kind=entry.kind, mode=entry.mode & 0o777, size=entry.size, link=entry.link)
                whole.mtime_ns = entry.mtime_ns
                outlet.write(header(whole))
                for piece in reader.pieces(entry.size):
                    outlet.write(bytes(piece))
                outlet.write(bytes(-entry.size % BLOCK))
    except Cancelled:
        return None
    except WharfieError as error:
        return error
    finally:
        os.close(packed)
    return None


def _refuse(entry: Entry, title: str) -> None:
    """Errors: InvalidArgument for an entry that has no place in the folder."""
    path = os.fsdecode(entry.path)
    within = posixpath.normpath(path) == posixpath.normpath(title) or _below(path, title)
    if entry.path.startswith(b"/") or not within:
        raise InvalidArgument(f"the folder {title!r} has an entry {path!r}, which is not in it")
    link = os.fsdecode(entry.link)
    leads_to = link if entry.kind == HARD_LINK else posixpath.join(posixpath.dirname(path), link)
    if entry.kind in (SYMLINK, HARD_LINK) and not _below(leads_to, title):
        raise InvalidArgument(f"the folder {title!r} has a link {path!r} to {link!r}, which leads out of it")
    if entry.kind not in (REGULAR, FOLDER, SYMLINK, HARD_LINK) or entry.sparse is not None:
        raise InvalidArgument(f"the folder {title!r} has an entry {path!r} that is no plain file, folder or link")


def _below(path: str, title: str) -> bool:
    return posixpath.normpath(path).startswith(posixpath.normpath(title) + "/")
