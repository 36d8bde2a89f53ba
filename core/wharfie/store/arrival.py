"""A blob that is read while it still arrives: one thread writes it, others read what is there and wait for more."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

_GLANCE_SECONDS = 0.25
"""How often a reader that waits looks whether it is still wanted."""


class Interrupted(Exception):  # a fact that the reader acts on
    """The blob will not be what was read so far: its download failed, or began anew."""


class Growth:
    """How far a blob has come. Told by who writes it; thread-safe."""

    def __init__(self, offset: int = 0) -> None:
        self._changed = threading.Condition()
        self._offset = offset
        self._whole: bool | None = None

    def reached(self, offset: int) -> None:
        """So many bytes are in the file."""
        with self._changed:
            self._offset = offset
            self._changed.notify_all()

    def ended(self, *, whole: bool) -> None:
        """Nothing comes any more. `whole`: it is all there and verified. Only the first call counts."""
        with self._changed:
            if self._whole is None:
                self._whole = whole
            self._changed.notify_all()

    def beyond(self, offset: int, check: Callable[[], None]) -> int:
        """Bytes in the file, once they are more than `offset`; `offset` itself once the blob ends there, verified.

        Errors: Interrupted; what `check` raises, which is called while there is nothing new.
        """
        with self._changed:
            while True:
                if self._whole is False:
                    raise Interrupted
                if self._offset > offset or self._whole:
                    return self._offset
                check()
                self._changed.wait(_GLANCE_SECONDS)


class Arriving:
    """A blob as a file. Its end is reached only when the blob is whole and verified. For one thread."""

    def __init__(self, descriptor: int, growth: Growth, check: Callable[[], None]) -> None:
        """`descriptor` is this object's from now on; `check` may raise to end a `read` that waits."""
        self._descriptor = descriptor
        self._growth = growth
        self._check = check
        self.offset = 0

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, b"" at the end. Errors: Interrupted, OSError, what `check` raises."""
        there = self._growth.beyond(self.offset, self._check)
        data = os.pread(self._descriptor, min(size, there - self.offset), self.offset) if there > self.offset else b""
        self.offset += len(data)
        return data

    def close(self) -> None:
        os.close(self._descriptor)
