"""Events to one hook plugin: in order, from a thread of its own, never holding up the engine."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from wharfie.plugins.failure import describe
from wharfie.spi.hooks import Event

CAPACITY = 1000
"""Events that wait for a slow plugin; then the oldest is dropped and counted."""

_LOG = logging.getLogger(__name__)


class Feed:
    """A bounded queue and its thread. `offer` never blocks; `dropped` and `failed` count what went wrong."""

    def __init__(self, title: str, deliver: Callable[[Event], None], capacity: int = CAPACITY) -> None:
        self.dropped = 0
        self.failed = 0
        self._title = title
        self._deliver = deliver
        self._events: deque[Event] = deque(maxlen=capacity)
        self._ready = threading.Condition()
        self._closed = False
        threading.Thread(target=self._run, name=f"events of {title}", daemon=True).start()

    def offer(self, event: Event) -> None:
        """Queue an event."""
        with self._ready:
            if len(self._events) == self._events.maxlen:
                self.dropped += 1
            self._events.append(event)
            self._ready.notify()

    def close(self) -> None:
        """End the thread after the event that it delivers now."""
        with self._ready:
            self._closed = True
            self._ready.notify()

    def _run(self) -> None:
        while True:
            with self._ready:
                self._ready.wait_for(lambda: self._events or self._closed)
                if self._closed:
                    return
                event = self._events.popleft()
            try:
                self._deliver(event)
            except BaseException as error:  # noqa: BLE001  # foreign code
                self.failed += 1
                _LOG.error(
                    "%s failed on event %s %s: %s", self._title, event.type, event.action, describe(error), exc_info=error
                )
