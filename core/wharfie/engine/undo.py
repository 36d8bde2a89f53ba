"""Steps that are taken back in reverse order when a later one fails."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

log = logging.getLogger(__name__)


class Undo:
    """An async context manager: after each step `add` how to take it back; `commit` when all is well.

    An undo step that fails is logged and the others still run: what it leaves is found by the drivers' `reconcile`.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._steps: list[tuple[str, Callable[[], Awaitable[object]]]] = []

    def add(self, name: str, step: Callable[[], Awaitable[object]]) -> None:
        self._steps.append((name, step))

    def commit(self) -> None:
        self._steps.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._steps:
            name, step = self._steps.pop()
            try:
                await step()
            except Exception as failure:  # noqa: BLE001  # whatever fails, the remaining steps must be taken back
                log.warning("%s: cannot undo %s: %s", self._what, name, failure)
