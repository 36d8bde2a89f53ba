"""Events: the lines of `GET /events`."""

from __future__ import annotations

from typing import Any

from wharfie.spi.hooks import Event

_LEGACY_TYPES = frozenset({"container", "image"})


def event_view(event: Event) -> dict[str, Any]:
    """Definition EventMessage. `status`, `id` and `from` are how events looked before they had types."""
    view: dict[str, Any] = {}
    if event.type in _LEGACY_TYPES:
        view["status"] = event.action
        if event.actor:
            view["id"] = event.actor
        image = event.attributes.get("image")
        if event.type == "container" and image:
            view["from"] = image
    return view | {
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.actor, "Attributes": dict(sorted(event.attributes.items()))},
        "scope": "local",
        "time": event.time_ns // 10**9,
        "timeNano": event.time_ns,
    }
