"""One thread for all followers of rotated logs: it tells each of them at once when a file was rotated away.

A follower whose client is slow reads when the client has taken what it got. By then the files that it has still to read
may have been removed, unless somebody opened them before.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Callable


class Holder:
    """Watches descriptors and calls back, one call at a time. Callbacks must not raise, and must not wait for `forget`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._lock = threading.Lock()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._thread: threading.Thread | None = None

    def watch(self, descriptor: int, callback: Callable[[], None]) -> None:
        """Call back whenever the descriptor is readable; the callback reads it empty."""
        with self._lock:
            self._callbacks[descriptor] = callback
            self._epoll.register(descriptor, select.EPOLLIN)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="rotated-logs", daemon=True)
                self._thread.start()

    def forget(self, descriptor: int) -> None:
        """No call comes after this. The descriptor may be closed then."""
        with self._lock:
            if self._callbacks.pop(descriptor, None) is not None:
                self._epoll.unregister(descriptor)

    def _run(self) -> None:
        while True:
            for descriptor, _ in self._epoll.poll():
                with self._lock:
                    callback = self._callbacks.get(descriptor)
                    if callback is not None:
                        callback()


HOLDER = Holder()
