"""A log reader that stays in its driver's process: the descriptor is here, the reading is a call."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable, Sequence

from wharfie.spi.errors import WharfieError
from wharfie.spi.log import LogEntry

_LOG = logging.getLogger(__name__)


class RemoteReader:
    """A `LogReader`. Its descriptor is an epoll over the driver's own one and a bell, so that it becomes readable, too,
    when the driver's process ends: the next `read` then says so instead of nobody ever waking up."""

    def __init__(self, descriptor: int, read: Callable[[int], Sequence[LogEntry]], close: Callable[[], None]) -> None:
        self._read = read
        self._close = close
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._source = descriptor
        self._both = select.epoll()
        self._lock = threading.Lock()
        self.closed = False
        self._both.register(self._bell, select.EPOLLIN)
        try:
            self._both.register(descriptor, select.EPOLLIN)
        except PermissionError:
            self.source_ended()  # a regular file: always readable, as poll(2) has it

    def fileno(self) -> int:
        return self._both.fileno()

    def read(self, limit: int) -> Sequence[LogEntry]:
        """Errors: Unavailable (the process has ended)."""
        return self._read(limit)

    def close(self) -> None:
        with self._lock:
            if self.closed:
                return
            self.closed = True
            self._both.close()
            os.close(self._source)
            os.close(self._bell)
        # The engine closes readers in its event loop, which must not wait for a foreign process.
        threading.Thread(target=self._let_go, name="close of a log reader", daemon=True).start()

    def source_ended(self) -> None:
        """Ring the bell. From any thread."""
        with self._lock:
            if not self.closed:
                os.eventfd_write(self._bell, 1)

    def _let_go(self) -> None:
        try:
            self._close()
        except WharfieError as error:
            _LOG.debug("a log reader went with its process: %s", error)
