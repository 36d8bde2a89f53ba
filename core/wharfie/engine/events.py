"""Events: what happened, told to whoever listens (Docker Engine API, `GET /events`).

The last 256 are kept for `since`. A listener that does not keep up loses the oldest of its backlog and nobody waits for it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from wharfie.engine.filters import Filters, check, labels_match
from wharfie.spi.hooks import Event

KEPT = 256
BACKLOG = 4096

_KNOWN = frozenset(
    {"config", "container", "daemon", "event", "image", "label", "network", "node"}
    | {"plugin", "scope", "secret", "service", "type", "volume"}
)
_BY_OBJECT = ("container", "image", "network", "volume", "plugin", "daemon")


class Events:
    """The bus. Used in the event loop's thread only."""

    def __init__(self) -> None:
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._queues: set[asyncio.Queue[Event]] = set()
        self._observers: list[Callable[[Event], None]] = []
        self._last_ns = 0
        self.emitted = 0

    @property
    def listeners(self) -> int:
        return len(self._queues)

    def observe(self, observer: Callable[[Event], None]) -> None:
        """Call `observer` with each event; it must not block."""
        self._observers.append(observer)

    def emit(self, type: str, action: str, actor: str, attributes: Mapping[str, str]) -> None:
        """Tell everybody. Times are strictly increasing, so order can be read from them."""
        self._last_ns = max(time.time_ns(), self._last_ns + 1)
        event = Event(type=type, action=action, actor=actor, attributes=dict(attributes), time_ns=self._last_ns)
        self._kept.append(event)
        self.emitted += 1
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)
        for observer in self._observers:
            observer(event)

    def subscribe(self, *, since_ns: int | None, until_ns: int | None, filters: Filters) -> AsyncIterator[Event]:
        """Kept events from `since_ns` on, then new ones until `until_ns`. Errors, at once: InvalidArgument."""
        check(filters, _KNOWN)
        queue: asyncio.Queue[Event] = asyncio.Queue(BACKLOG)
        past = [event for event in self._kept if since_ns is not None and event.time_ns >= since_ns]
        self._queues.add(queue)
        return self._follow(queue, past, until_ns, filters)

    async def _follow(
        self, queue: asyncio.Queue[Event], past: list[Event], until_ns: int | None, filters: Filters
    ) -> AsyncIterator[Event]:
        try:
            for event in past:
                if (until_ns is None or event.time_ns <= until_ns) and matches(event, filters):
                    yield event
            while True:
                remaining = None if until_ns is None else (until_ns - time.time_ns()) / 1e9
                if remaining is not None and remaining <= 0 and queue.empty():
                    return
                try:
                    event = await asyncio.wait_for(queue.get(), None if remaining is None else max(remaining, 0.001))
                except TimeoutError:
                    return
                if until_ns is not None and event.time_ns > until_ns:
                    return
                if matches(event, filters):
                    yield event
        finally:
            self._queues.discard(queue)


def matches(event: Event, filters: Filters) -> bool:
    """Whether an event passes `docker events --filter`."""
    kinds = filters.get("type", ())
    if kinds and event.type not in kinds:
        return False
    actions = filters.get("event", ())
    if actions and event.action not in actions and event.action.partition(":")[0] not in actions:
        return False
    if filters.get("scope") and "local" not in filters["scope"]:
        return False
    if not labels_match(filters, event.attributes):
        return False
    wanted = [(kind, filters[kind]) for kind in _BY_OBJECT if filters.get(kind)]
    return all(_is_about(event, kind, names) for kind, names in wanted)


def _is_about(event: Event, kind: str, names: Sequence[str]) -> bool:
    """Whether the event's object, or the image of its container, has one of the names or ids."""
    if event.type == kind:
        candidates = {event.actor, event.attributes.get("name", "")}
    elif kind in ("image", "container"):
        candidates = {event.attributes.get(kind, "")}
    else:
        return False
    for name in names:
        if name in candidates or (len(name) >= 12 and event.type == kind and event.actor.startswith(name)):
            return True
        if kind == "image" and any(candidate.partition(":")[0] == name for candidate in candidates):
            return True
    return False
