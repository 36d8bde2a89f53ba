"""The writing end of a log file that is rotated by size. Runs in the shim: standard library only.

    NAME            being written
    NAME.1, NAME.2  older ones, or NAME.1.gz … with `compress`

One `append` is one write(2). Compression goes along with later appends, a slice each time: the shim has one thread, and
a whole file at once would hold up the container's output; a thread or a child would be in the way of its forks. A file
that is not finished when the container ends stays as it is and is finished in the next run; readers take both forms.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import zlib

    from wharfie_log_files.framing import Framing

MODE = 0o640
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
SLICE = 64 * 1024


class RotatingFile:
    """Appends whole entries; a file never grows over `max_size` unless one entry alone does. `max_size` 0: no limit."""

    def __init__(self, name: str, framing: Framing, *, max_size: int, max_file: int, compress: bool) -> None:
        """Open the file, behind the last whole entry. Raises OSError."""
        self._name = name  # a path object is made for a rotation: every shim would pay for it with memory
        self._framing = framing
        self._max_size = max_size
        self._max_file = max_file
        self._compress = compress
        self._compression: Compression | None = None
        self._fd = -1
        self._size = 0
        try:
            self._open()
        except FileNotFoundError:
            self._path.parent.mkdir(mode=0o710, exist_ok=True)
            self._open()
        if self._size:
            size = framing.whole(self._fd, self._size)
            if size != self._size:
                self._cut_to(size)
        if compress and beside(self._path, ".1").exists():
            self._compression = Compression(beside(self._path, ".1"), beside(self._path, ".tmp"))

    @property
    def _path(self) -> Path:
        return Path(self._name)

    def append(self, batch: bytes) -> None:
        """Write the entries in `batch`, rotating where the limit comes. Raises OSError; entries are whole or absent."""
        if self._fd < 0:  # the last rotation failed half-way
            self._open()
        if not self._max_size or self._size + len(batch) <= self._max_size:
            self._write(batch)
        else:
            self._append_in_parts(batch)
        if self._compression is not None and self._compression.step(max(SLICE, 2 * len(batch))):
            self._compression = None

    def close(self) -> None:
        """May be repeated."""
        if self._compression is not None:
            self._compression.abandon()
            self._compression = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _append_in_parts(self, batch: bytes) -> None:
        start = 0
        while start < len(batch):
            end = self._framing.fit(batch, start, self._max_size - self._size)
            if end == start:
                if self._size:
                    self._rotate()
                    continue
                end = self._framing.first(batch, start)
            self._write(batch[start:end])
            start = end

    def _open(self) -> None:
        self._fd = os.open(self._name, _FLAGS, MODE)
        self._size = os.fstat(self._fd).st_size

    def _write(self, entries: bytes) -> None:
        try:
            written = os.write(self._fd, entries)
            while written < len(entries):  # the disk is nearly full: the next call says so
                written += os.write(self._fd, entries[written:])
        except OSError:
            self._cut_to(self._framing.whole(self._fd, os.fstat(self._fd).st_size))
            raise
        self._size += len(entries)

    def _cut_to(self, size: int) -> None:
        os.ftruncate(self._fd, size)
        self._size = size

    def _rotate(self) -> None:
        if self._compression is not None:
            self._compression.step(self._compression.size)
            self._compression = None
        now = time.time_ns()
        os.utime(self._fd, ns=(now, now))  # the kernel's own stamps are a tick apart: too coarse to know files by
        os.close(self._fd)
        self._fd = -1
        if self._max_file == 1:
            self._path.unlink()  # not truncated: a reader may still be in it
        else:
            for rank in range(self._max_file - 1, 0, -1):
                for suffix in ("", ".gz"):
                    self._shift(beside(self._path, f".{rank}{suffix}"), beside(self._path, f".{rank + 1}{suffix}"), rank)
            previous = self._path.rename(beside(self._path, ".1"))
            if self._compress:
                self._compression = Compression(previous, beside(self._path, ".tmp"))
        self._open()

    def _shift(self, old: Path, new: Path, rank: int) -> None:
        try:
            if rank == self._max_file - 1:
                old.unlink()
            else:
                old.rename(new)
        except FileNotFoundError:
            pass


class Compression:
    """One rotated file on its way to gzip, a slice at a time.

    The result carries the source's modification time: by that a reader that was in the source finds its place again.
    """

    LEVEL = 1
    """Container output is compressed beside the program that makes it: speed counts more than the last tenth of size."""

    def __init__(self, source: Path, work: Path) -> None:
        import zlib  # only a container with `compress` needs it

        self._source = source
        self._work = work
        self._input = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        self._output = -1
        status = os.fstat(self._input)
        self._mtime = status.st_mtime_ns
        self.size = status.st_size + 1  # so that a step of this size meets the end
        self._gzip: zlib._Compress = zlib.compressobj(self.LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)

    def step(self, amount: int) -> bool:
        """Compress up to `amount` bytes more; True when finished. A full disk ends it: the file stays uncompressed."""
        try:
            if self._output < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
                self._output = os.open(self._work, flags, MODE)
            while amount > 0:
                data = os.read(self._input, min(amount, SLICE))
                if not data:
                    self._finish()
                    return True
                amount -= len(data)
                _write_all(self._output, self._gzip.compress(data))
        except OSError:
            self.abandon()
            return True
        return False

    def abandon(self) -> None:
        """Leave the source as it is."""
        self._close()
        try:
            self._work.unlink(missing_ok=True)
        except OSError:
            pass

    def _finish(self) -> None:
        _write_all(self._output, self._gzip.flush())
        os.utime(self._output, ns=(self._mtime, self._mtime))
        self._work.rename(beside(self._source, ".gz"))
        self._source.unlink()
        self._close()

    def _close(self) -> None:
        for fd in (self._input, self._output):
            if fd >= 0:
                os.close(fd)
        self._input = self._output = -1


def beside(path: Path, suffix: str) -> Path:
    """The file whose name is that of `path` with `suffix` after it."""
    return path.with_name(path.name + suffix)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
