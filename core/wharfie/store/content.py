"""Blobs by digest: manifests, configurations and layers as they came, in an OCI image layout that other tools can read.

    content/
      oci-layout, index.json    (image-spec, image-layout.md)
      blobs/sha256/HEX          whole and verified; named only after it and its folder are on the disk
      ingest/HEX                a download under way, or what is left of one, continued by the next pull
      ingest/spool-…            a body of unknown digest under way; removed at the next start

All methods block on the disk and belong into a worker thread, except where they say otherwise. Errors: OutOfSpace and
what else `from_os_error` says.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from wharfie.spi.errors import DataLoss, InvalidArgument, OutOfSpace, from_os_error
from wharfie.store.arrival import Arriving, Growth, Interrupted

LEFTOVER_BYTES = 1 << 30
LEFTOVER_SECONDS = 7 * 86400
"""How much of pulls that did not end well is kept for the next attempt, and for how long."""

_CHUNK = 1 << 20
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class Ingest:
    """A blob on its way in. `write` in order, then `commit`; `discard` or `close` whatever happens."""

    def __init__(self, store: ContentStore, path: Path, digest: str, size: int) -> None:
        self._store = store
        self._path = path
        self._digest = digest
        self._size = size
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self.descriptor = -1
        self.growth = Growth()
        store.begun(path.name, self)
        with _disk():
            self.descriptor = os.open(path, flags, 0o600)
        self._hash = hashlib.sha256()
        self.offset = 0
        self._resume()

    def _resume(self) -> None:
        buffer = memoryview(bytearray(_CHUNK))
        while count := os.readv(self.descriptor, [buffer]):
            self._hash.update(buffer[:count])
            self.offset += count
        if self.offset > self._size:
            self.restart()
        self.growth.reached(self.offset)

    def restart(self) -> None:
        """Forget what is there: it was wrong."""
        self.growth.ended(whole=False)
        self.growth = Growth()
        with _disk():
            os.ftruncate(self.descriptor, 0)
            os.lseek(self.descriptor, 0, os.SEEK_SET)
        self._hash = hashlib.sha256()
        self.offset = 0

    def write(self, data: memoryview | bytes) -> None:
        """Append. Errors: InvalidArgument when it would be longer than announced."""
        if self.offset + len(data) > self._size:
            raise InvalidArgument(f"blob {self._digest} is longer than the {self._size} bytes that its descriptor says")
        view = memoryview(data)
        self._hash.update(view)
        with _disk():
            while view:
                count = os.write(self.descriptor, view)
                self.offset += count
                view = view[count:]
        self.growth.reached(self.offset)

    def commit(self) -> None:
        """Give the blob its name if it is what was announced. Errors: InvalidArgument.

        Who reads along is told of the end before the disk has everything: what is made of it waits for the disk itself.
        """
        if self.offset != self._size:
            raise InvalidArgument(f"blob {self._digest} has {self.offset} bytes, but its descriptor says {self._size}")
        if "sha256:" + self._hash.hexdigest() != self._digest:
            raise InvalidArgument(f"filesystem layer verification failed for digest {self._digest}")
        self.growth.ended(whole=True)
        self._store.settle(self.descriptor, self._path, self._digest)
        self.close()

    def close(self) -> None:
        """Keep what is there for the next attempt. May be repeated."""
        self.growth.ended(whole=False)
        self._store.ended(self._path.name, self)
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def discard(self) -> None:
        """Remove what is there, unless it was committed. May be repeated."""
        if self.descriptor >= 0:
            self._path.unlink(missing_ok=True)
        self.close()


class Spool:
    """A body of unknown digest. `write`, then `commit`; `discard` whatever happens."""

    def __init__(self, store: ContentStore, path: Path) -> None:
        self._store = store
        self.path = path
        with _disk():
            self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    @property
    def size(self) -> int:
        return os.fstat(self.descriptor).st_size

    def write(self, data: memoryview | bytes) -> None:
        """Append."""
        view = memoryview(data)
        with _disk():
            while view:
                view = view[os.write(self.descriptor, view) :]

    def digest(self) -> str:
        """Of what was written."""
        hasher = hashlib.sha256()
        buffer = memoryview(bytearray(_CHUNK))
        offset = 0
        while count := os.preadv(self.descriptor, [buffer], offset):
            hasher.update(buffer[:count])
            offset += count
        return "sha256:" + hasher.hexdigest()

    def first(self, count: int) -> bytes:
        """The first bytes."""
        if self.descriptor >= 0:
            return os.pread(self.descriptor, count, 0)
        with _disk(), self.path.open("rb", buffering=0) as file:
            return file.read(count)

    def rest(self) -> None:
        """Close the descriptor: nothing is written any more, and there are many of these."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def commit(self, digest: str) -> None:
        """Name the blob. `digest` is of what was written, all of it. May be repeated; the spool itself stays."""
        draft = self._store.draft()
        try:
            with _disk():
                os.link(self.path, draft)
                descriptor = os.open(draft, os.O_RDWR | os.O_CLOEXEC)
            try:
                self._store.settle(descriptor, draft, digest)
            finally:
                os.close(descriptor)
        finally:
            draft.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove it; a blob that it was named stays. May be repeated."""
        self.rest()
        self.path.unlink(missing_ok=True)


class ContentStore:
    """The store. One daemon uses a folder at a time; whoever calls sees to it that one blob has one writer."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs" / "sha256"
        self._ingest = root / "ingest"
        self._lock = threading.Lock()
        self._open: dict[str, Ingest] = {}  # by their names in `ingest`

    def open(self) -> None:
        """Make the folders, and bound what a killed predecessor left unfinished."""
        with _disk():
            for folder in (self._blobs, self._ingest):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.root.chmod(0o700)
            layout = self.root / "oci-layout"
            if not layout.exists():
                layout.write_bytes(_LAYOUT)
            for path in self._ingest.glob("spool-*"):
                path.unlink()
        self.bound_leftovers()

    def begun(self, name: str, ingest: Ingest) -> None:
        """A file of `ingest` is written from now on."""
        with self._lock:
            self._open[name] = ingest

    def ended(self, name: str, ingest: Ingest) -> None:
        """It is not written any more, and its descriptor may go."""
        with self._lock:
            if self._open.get(name) is ingest:
                del self._open[name]

    def follow(self, digest: str, check: Callable[[], None]) -> Arriving:
        """A blob for reading, also while it arrives; `check`: see there. Errors: Interrupted when it is not here."""
        name = _hex(digest)
        with self._lock, _disk():
            ingest = self._open.get(name)
            if ingest is not None and ingest.descriptor >= 0:
                return Arriving(os.dup(ingest.descriptor), ingest.growth, check)
            try:
                descriptor = os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise Interrupted from None
        whole = Growth(os.fstat(descriptor).st_size)
        whole.ended(whole=True)
        return Arriving(descriptor, whole, check)

    def leftovers(self) -> dict[str, int]:
        """Bytes of what was not finished, by digest, the newest first. Downloads under way are not among them."""
        with self._lock:
            found = [entry for entry in os.scandir(self._ingest) if entry.name not in self._open and len(entry.name) == 64]
            facts = sorted(((entry.stat(), entry.name) for entry in found), key=lambda pair: -pair[0].st_mtime)
        return {f"sha256:{name}": fact.st_size for fact, name in facts}

    def bound_leftovers(self, limit: int = LEFTOVER_BYTES) -> int:
        """Remove the oldest until at most `limit` bytes are left, and what is too old; gives the bytes that went."""
        freed = total = 0
        for digest, size in self.leftovers().items():
            path = self._ingest / _hex(digest)
            with _disk():
                old = time.time() - path.stat().st_mtime > LEFTOVER_SECONDS
                total += size
                if old or total > limit:
                    path.unlink()
                    freed += size
        return freed

    def drop_leftovers(self, digests: Iterable[str]) -> None:
        """Remove what is left of these downloads, unless they are under way."""
        with self._lock, _disk():
            for name in map(_hex, digests):
                if name not in self._open:
                    (self._ingest / name).unlink(missing_ok=True)

    def set_aside(self, digest: str) -> None:
        """Turn a blob that nobody needs into what is left of a download: a pull that wants it again finds it there."""
        with self._lock, _disk():
            if _hex(digest) in self._open:
                self.path(digest).unlink(missing_ok=True)
                return
            with contextlib.suppress(FileNotFoundError):
                self.path(digest).rename(self._ingest / _hex(digest))
                os.utime(self._ingest / _hex(digest))

    def path(self, digest: str) -> Path:
        """Where the blob is, or would be. Does not block."""
        return self._blobs / _hex(digest)

    def size(self, digest: str) -> int | None:
        """Bytes of the blob; None when it is not here."""
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            return None

    def digests(self) -> set[str]:
        """Every blob."""
        return {f"sha256:{path.name}" for path in self._blobs.iterdir()}

    def read(self, digest: str, limit: int) -> bytes:
        """A small blob, verified. Errors: DataLoss (missing, damaged, longer than `limit`)."""
        try:
            with open(self.path(digest), "rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise DataLoss(f"blob {digest} cannot be read: {error}. Pull or load its image again") from error
        if len(data) > limit or "sha256:" + hashlib.sha256(data).hexdigest() != digest:
            raise DataLoss(f"blob {digest} in {self._blobs} is damaged: pull or load its image again")
        return data

    def fault(self, digest: str, size: int | None) -> str:
        """Read a blob whole. What is wrong with it, in words; empty when it is what its name and `size` say."""
        try:
            with open(self.path(digest), "rb", buffering=0) as file:
                found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
                length = file.tell()
        except FileNotFoundError:
            return "it is missing"
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        if size is not None and length != size:
            return f"it has {length} bytes, not {size}"
        return "" if found == digest else f"its content is {found}"

    def put(self, data: bytes) -> str:
        """Keep a small document; gives its digest. May be repeated."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        if self.size(digest) != len(data):
            ingest = Ingest(self, self.draft(), digest, len(data))
            try:
                ingest.write(data)
                ingest.commit()
            finally:
                ingest.discard()
        return digest

    def ingest(self, digest: str, size: int) -> Ingest:
        """Begin, or go on with, a blob that was announced."""
        return Ingest(self, self._ingest / _hex(digest), digest, size)

    def spool(self) -> Spool:
        """Begin a body of unknown digest."""
        return Spool(self, self.draft())

    def draft(self) -> Path:
        """A name for a file that is not a blob yet. Does not block."""
        return self._ingest / f"spool-{secrets.token_hex(8)}"

    def settle(self, descriptor: int, path: Path, digest: str) -> None:
        """Make a written file durable, then give it its name, then make the name durable. What was left of a download of it
        is needed no more."""
        with _disk():
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
            path.replace(self.path(digest))
            _sync_folder(self._blobs)
        self.drop_leftovers([digest])

    def remove(self, digest: str) -> None:
        """Succeeds when it is not there."""
        with _disk():
            self.path(digest).unlink(missing_ok=True)

    def write_index(self, manifests: list[dict[str, Any]]) -> None:
        """List the images for other tools. Not made durable: it is written anew at each start."""
        document = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": manifests,
        }
        draft = self.draft()
        with _disk():
            draft.write_text(json.dumps(document, separators=(",", ":")))
            draft.replace(self.root / "index.json")


def _hex(digest: str) -> str:
    """The file name; refuses whatever else a "digest" might hold."""
    value = digest.removeprefix("sha256:")
    if len(value) != 64 or value.strip("0123456789abcdef"):
        raise InvalidArgument(f"{digest!r} is not a sha256 digest")
    return value


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        known = from_os_error(error)
        if isinstance(known, OutOfSpace):
            reason = os.strerror(error.errno or 0).lower()
            advice = "remove unused images and containers"
            raise OutOfSpace(f"writing to the content store: {reason}; {advice}", details=known.details) from error
        raise known from error
