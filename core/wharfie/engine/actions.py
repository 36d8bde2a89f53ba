"""How long the engine takes for what it is asked to do: told to whoever measures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CONTAINER_ACTIONS = ("changes", "commit", "create", "delete", "start")
NETWORK_ACTIONS = ("allocate", "connect", "release")

Observer = Callable[[str, str, float], None]
"""Of a kind ("container", "network"), an action and its seconds. Must not raise."""


class Actions:
    """Used in the event loop's thread only. What fails is not told, as Docker does not count it."""

    def __init__(self) -> None:
        self._observers: list[Observer] = []

    def observe(self, observer: Observer) -> None:
        """Tell `observer` of each action that has succeeded."""
        self._observers.append(observer)

    @contextmanager
    def timed(self, kind: str, action: str) -> Iterator[None]:
        """Around the work."""
        began = time.perf_counter()
        yield
        for observer in self._observers:
            observer(kind, action, time.perf_counter() - began)
