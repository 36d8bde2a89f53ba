"""What is being removed: moved out of sight at once, taken apart by a thread of its own.

A layer of a thousand files is gone for everybody by one rename; the unlinking takes as long as the disk wants. Whoever is
killed meanwhile leaves folders in the trash, which the next `open` takes up. Where space is short, callers wait for it:
what they removed is then really free.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from wharfie.spi import nodes
from wharfie.spi.call import Call, enter_call, progress
from wharfie.spi.errors import Cancelled
from wharfie.spi.inroot import FOLDER

SHORT_OF_BYTES = 1 << 30
SHORT_OF_INODES = 50_000
"""With less than this free, nobody goes on before the trash is empty."""

CLOSING_SECONDS = 2.0
"""How long the end of the daemon may wait for the trash."""


class Trash:
    """The folder and its thread, which runs only while there is something to do. Safe for threads."""

    def __init__(self, folder: Path, log: logging.Logger) -> None:
        self._folder = folder
        self._log = log
        self._lock = threading.Lock()
        self._waiting: deque[str] = deque()
        self._known: set[str] = set()  # waiting, or being removed
        self._thread: threading.Thread | None = None
        self._call = Call("trash")

    def open(self) -> None:
        """Make the folder, and go on with what a predecessor left."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._call = Call("trash")
        self.take_up()

    def close(self) -> None:
        """End the thread: a little rest is still removed, more waits for the next `open`."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout=CLOSING_SECONDS)
        self._call.cancel()
        if thread is not None:
            thread.join()

    def throw(self, folder: Path) -> None:
        """Take a folder away. Its name is free on return. Succeeds when it is not there. Errors: OSError."""
        token = secrets.token_hex(8)
        try:
            folder.rename(self._folder / token)
        except FileNotFoundError:
            return
        self._add([token])

    def take_up(self) -> None:
        """Try again what is still there, for whatever reason."""
        self._add(path.name for path in self._folder.iterdir())

    def make_room(self) -> None:
        """Where space is short, wait until the trash is empty. Errors: Cancelled."""
        while (thread := self._thread) is not None and self._is_short():
            thread.join(timeout=0.1)
            progress()

    def _is_short(self) -> bool:
        facts = os.statvfs(self._folder)
        few = bool(facts.f_files) and facts.f_favail < SHORT_OF_INODES
        return few or facts.f_bavail * facts.f_frsize < SHORT_OF_BYTES

    def _add(self, tokens: Iterable[str]) -> None:
        with self._lock:
            for token in tokens:
                if token not in self._known:
                    self._known.add(token)
                    self._waiting.append(token)
            if self._waiting and self._thread is None and not self._call.cancelled.is_set():
                self._thread = threading.Thread(target=self._work, name="overlay2-trash", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        enter_call(self._call)
        where = os.open(self._folder, FOLDER)
        try:
            while (token := self._next()) is not None:
                try:
                    nodes.remove(where, token.encode())
                except Cancelled:
                    return
                except OSError as error:
                    self._log.warning("%s/%s cannot be removed and takes space: %s", self._folder, token, error)
                finally:
                    with self._lock:
                        self._known.discard(token)
        finally:
            os.close(where)
            with self._lock:
                self._thread = None if self._thread is threading.current_thread() else self._thread

    def _next(self) -> str | None:
        """The next one; None, and the thread is no more, when there is none."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._thread = None
            return None
