"""Reading a log that is being written and rotated, without ever waiting.

A reader holds a queue of open files, oldest first, and a place in the first one. A file that is read to its end gives
way to the next; behind the newest one the writer is still at work. When that one was rotated away, what came after it
is found among the rotated files: by inode, or, once it was compressed, by the modification time that compression keeps.

A follower opens each new file when it appears, however slow its client is: a descriptor keeps what a rotation removes.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import os
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wharfie.spi.log import LogEntry, LogQuery, LogRun
from wharfie_log_files import inotify
from wharfie_log_files.framing import Framing
from wharfie_log_files.holding import HOLDER
from wharfie_log_files.rotating import beside

BLOCK = 256 * 1024
HELD_BYTES = 256 << 20
HELD_FILES = 128
"""What one follower may keep of files that are removed already. Who is slower than that loses lines, not the disk."""
_LOOKS = 20

log = logging.getLogger(__name__)

Decode = Callable[[bytes], Iterator[LogRun]]
"""What is in a block of whole entries; damaged ones are passed over."""


@dataclass(slots=True)
class _File:
    """An open log file. `packed`: it is a compressed one. `end`: read no further than this, None: as far as it goes."""

    fd: int
    inode: int
    mtime_ns: int  # when it was opened; a packed file's is that of its source
    packed: bool
    unpacked: bool = False
    offset: int = 0
    end: int | None = None

    @classmethod
    def open(cls, path: Path) -> _File:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(fd)
        return cls(fd=fd, inode=status.st_ino, mtime_ns=status.st_mtime_ns, packed=path.suffix == ".gz")

    def size(self) -> int:
        return os.fstat(self.fd).st_size if self.end is None else self.end

    def is_same(self, other: _File) -> bool:
        """Whether both are one log file, perhaps once as written and once compressed."""
        if not self.packed and not other.packed:
            return self.inode == other.inode
        return self._finished_ns() == other._finished_ns()

    def unpack(self) -> None:
        """Read a packed file from an unnamed, uncompressed copy from now on."""
        if not self.packed or self.unpacked:
            return
        with tempfile.TemporaryFile() as plain:
            with os.fdopen(self.fd, "rb") as packed, gzip.GzipFile(fileobj=packed) as source:
                self.fd = -1
                shutil.copyfileobj(source, plain, BLOCK)
            plain.flush()
            self.fd = os.dup(plain.fileno())
        self.unpacked = True

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _finished_ns(self) -> int:
        return self.mtime_ns if self.packed else os.fstat(self.fd).st_mtime_ns


class FileReader:
    """A `RunReader` over the rotated files at `path`."""

    def __init__(self, path: Path, framing: Framing, decode: Decode, query: LogQuery, *, rotates: bool) -> None:
        """Errors: Unavailable (inotify's limits), OSError."""
        self._path = path
        self._framing = framing
        self._decode = decode
        self._query = query
        self._ended = False
        self._entries: deque[LogEntry] = deque()  # read, and not yet asked for
        self._files: deque[_File] = deque()
        self._turn = threading.Lock()
        self._rotated = -1
        self._complained = False
        # Watched before it is looked at, so that nothing falls between.
        if query.follow:
            path.parent.mkdir(mode=0o710, exist_ok=True)
        self._wake = inotify.watch(path.parent) if query.follow else os.eventfd(1, os.EFD_CLOEXEC)
        try:
            self._files.extend(self._open_all())
            self._seek()
            if self._files and not query.follow:
                newest = self._files[-1]
                newest.end = os.fstat(newest.fd).st_size
            if query.follow and rotates:
                self._rotated = inotify.watch(path.parent, inotify.NAMES)
                HOLDER.watch(self._rotated, self._hold)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        return self._wake

    def read(self, limit: int) -> Sequence[LogEntry]:
        while not self._entries and (runs := self.read_runs()):
            for run in runs:
                self._entries += (
                    LogEntry(stream=run.stream, data=data, time_ns=run.time_ns, attributes=run.attributes)
                    for data in run.entries()
                )
        return [self._entries.popleft() for _ in range(min(limit, len(self._entries)))]

    def read_runs(self) -> Sequence[LogRun]:
        with self._turn:
            return self._read_runs()

    def close(self) -> None:
        if self._rotated >= 0:
            HOLDER.forget(self._rotated)
            os.close(self._rotated)
            self._rotated = -1
        while self._files:
            self._files.pop().close()
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1

    def _read_runs(self) -> Sequence[LogRun]:
        if self._query.follow and not self._ended:
            inotify.drain(self._wake)
        found: list[LogRun] = []
        while not found and not self._ended and (block := self._block()):
            for run in self._decode(block):
                if run.time_ns < self._query.since_ns:
                    continue
                if self._query.until_ns and run.time_ns > self._query.until_ns:
                    self._ended = True
                    break
                found.append(run)
        return found

    def _hold(self) -> None:
        """In the holder's thread: a file has appeared. Open it before it can be rotated away."""
        inotify.drain(self._rotated)
        try:
            with self._turn:
                removed = [facts for file in self._files if not (facts := os.fstat(file.fd)).st_nlink]
                if len(self._files) < HELD_FILES and sum(facts.st_size for facts in removed) < HELD_BYTES:
                    self._successors()
                    return
            cause = f"it is {len(removed)} removed files behind"
        except OSError as error:
            cause = str(error)
        if not self._complained:
            self._complained = True
            log.warning("a client that follows %s is too slow and may lose lines: %s", self._path, cause)

    def _block(self) -> bytes:
        """The next entries, all of them whole; empty when there is nothing now."""
        while self._files or self._successors():
            file = self._files[0]
            if block := self._whole_entries(file):
                return block
            if len(self._files) == 1:
                if not self._query.follow or not self._successors():
                    return b""
                # It was rotated away after the last look: what was written in between comes first.
                if block := self._whole_entries(file):
                    return block
            self._files.popleft().close()
        return b""

    def _whole_entries(self, file: _File) -> bytes:
        file.unpack()
        amount = BLOCK
        while True:
            data = os.pread(file.fd, amount, file.offset)
            if file.end is not None:
                data = data[: file.end - file.offset]
            end = self._framing.fit(data, 0, len(data))
            if end or len(data) < amount:
                file.offset += end
                return data[:end]
            amount *= 4  # one entry larger than the block

    def _successors(self) -> bool:
        """Open what came after the newest open file; whether there is any."""
        newest = self._files[-1] if self._files else None
        if newest is None and not self._query.follow:
            return False
        found = self._open_all(until=newest)
        self._files.extend(found)
        return bool(found)

    def _open_all(self, until: _File | None = None) -> list[_File]:
        """All files, or those newer than `until`, oldest first."""
        for _ in range(_LOOKS):
            try:
                return self._look(until, strict=True)
            except FileNotFoundError:
                continue  # a rotation renamed it, or its compression ended, between the look and the opening
        return self._look(until, strict=False)

    def _look(self, until: _File | None, *, strict: bool) -> list[_File]:
        """From the newest on, so that a rotation meanwhile shows a file twice rather than never.

        Errors: with `strict` FileNotFoundError, which `until` may have been.
        """
        found: list[_File] = []
        try:
            for path in self._names():
                try:
                    file = _File.open(path)
                except FileNotFoundError:
                    if strict and path != self._path:
                        raise
                    continue
                if until is not None and file.is_same(until):
                    file.close()
                    break
                if any(file.is_same(other) for other in found):
                    file.close()
                elif file.mtime_ns < self._query.since_ns:
                    file.close()  # everything in it and in the older ones is older
                    break
                else:
                    found.append(file)
        except BaseException:
            for file in found:
                file.close()
            raise
        found.reverse()
        return found

    def _names(self) -> Iterator[Path]:
        """The names of the log's files, newest first."""
        yield self._path
        rank, missing = 1, 0
        while missing < 2:  # one is missing while a rotation moves the files up
            # Both are there when the writer was killed at the end of a compression; the uncompressed one is whole.
            name = beside(self._path, f".{rank}")
            packed = beside(self._path, f".{rank}.gz")
            missing += 1
            if name.exists():
                missing = 0
                yield name
            elif packed.exists():
                missing = 0
                yield packed
            rank += 1

    def _seek(self) -> None:
        """Go to where the last `tail` entries begin, closing what is older."""
        if self._query.tail < 0:
            return
        wanted = self._query.tail
        kept: deque[_File] = deque()
        for file in reversed(self._files):
            if wanted == 0 and kept:
                file.close()
                continue
            file.unpack()
            end = self._framing.whole(file.fd, file.size())
            file.offset, found = self._framing.tail(file.fd, end, wanted) if wanted else (end, 0)
            wanted -= found
            kept.appendleft(file)
        self._files = kept


def remove(path: Path) -> None:
    """Remove a log with all its rotated files. May be repeated."""
    for file in path.parent.glob(f"{path.name}*"):
        with contextlib.suppress(FileNotFoundError):
            file.unlink()
