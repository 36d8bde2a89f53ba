"""Where one log entry ends and the next begins, for the two file formats. Runs in the shim and in the daemon.

    Lines     json-file: one JSON object a line; a line end is never inside of one
    Records   local: 4 bytes length, the record, the same 4 bytes again, so that it can be walked from both ends

Both answer the same few questions, so that rotation, repair after a crash, tail and following are written once.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence

BLOCK = 64 * 1024


class Framing(ABC):
    """Knows the borders of entries, nothing of what is in them."""

    @abstractmethod
    def fit(self, data: bytes, start: int, room: int) -> int:
        """The end of the last whole entry of `data` that ends within `room` bytes of `start`; `start` when none does."""

    @abstractmethod
    def first(self, data: bytes, start: int) -> int:
        """The end of the entry that begins at `start`, whatever its length."""

    @abstractmethod
    def tail(self, fd: int, end: int, count: int) -> tuple[int, int]:
        """Where the last `count` entries before `end` begin, and how many there really are."""

    @abstractmethod
    def whole(self, fd: int, size: int) -> int:
        """The end of the last whole entry in a file of `size` bytes: a writer was killed in the middle of the next one."""


class Lines(Framing):
    """Entries are lines."""

    def fit(self, data: bytes, start: int, room: int) -> int:
        return data.rfind(b"\n", start, start + room) + 1 or start

    def first(self, data: bytes, start: int) -> int:
        return data.find(b"\n", start) + 1 or len(data)

    def tail(self, fd: int, end: int, count: int) -> tuple[int, int]:
        found = 0
        position = end
        while position > 0:
            start = max(0, position - BLOCK)
            block = os.pread(fd, position - start, start)
            border = len(block)
            # Each line is found by the end of the line before it, so the last line's own end is not looked at.
            while (border := block.rfind(b"\n", 0, border)) >= 0:
                if start + border + 1 == end:
                    continue
                found += 1
                if found == count:
                    return start + border + 1, found
            position = start
        return 0, found + (1 if end > 0 else 0)

    def whole(self, fd: int, size: int) -> int:
        position = size
        while position > 0:
            start = max(0, position - BLOCK)
            border = os.pread(fd, position - start, start).rfind(b"\n")
            if border >= 0:
                return start + border + 1
            position = start
        return 0


class Records(Framing):
    """Entries are length, record, length."""

    LENGTH = 4

    def first(self, data: bytes, start: int) -> int:
        return start + int.from_bytes(data[start : start + self.LENGTH], "big") + 2 * self.LENGTH

    def fit(self, data: bytes, start: int, room: int) -> int:
        border = start
        while border < len(data):
            end = self.first(data, border)
            if end - start > room:
                break
            border = end
        return border

    def split(self, data: bytes) -> Sequence[bytes]:
        """The records of `data`, which are whole."""
        records: list[bytes] = []
        position = 0
        while position < len(data):
            end = self.first(data, position)
            records.append(data[position + self.LENGTH : end - self.LENGTH])
            position = end
        return records

    def tail(self, fd: int, end: int, count: int) -> tuple[int, int]:
        found = 0
        position = end
        while found < count and position > 0:
            length = int.from_bytes(os.pread(fd, self.LENGTH, position - self.LENGTH), "big")
            start = position - length - 2 * self.LENGTH
            if start < 0:  # damaged: what is before cannot be found from this end
                break
            position = start
            found += 1
        return position, found

    def whole(self, fd: int, size: int) -> int:
        if size >= 2 * self.LENGTH:  # nearly always: both lengths of the last record agree
            length = os.pread(fd, self.LENGTH, size - self.LENGTH)
            start = size - int.from_bytes(length, "big") - 2 * self.LENGTH
            if start >= 0 and os.pread(fd, self.LENGTH, start) == length:
                return size
        position = 0
        while position + self.LENGTH <= size:
            length = os.pread(fd, self.LENGTH, position)
            end = position + int.from_bytes(length, "big") + 2 * self.LENGTH
            if end > size or os.pread(fd, self.LENGTH, end - self.LENGTH) != length:
                break
            position = end
        return position
