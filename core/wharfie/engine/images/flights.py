"""One piece of work for all who want it: two pulls of one layer fetch it once.

Who joins sees the steps from then on, starting with the latest. The work is cancelled when the last one leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")
S = TypeVar("S")


class _Flight(Generic[T, S]):
    def __init__(self) -> None:
        self.task: asyncio.Task[T] | None = None
        self.watchers: list[Callable[[S], None]] = []
        self.latest: S | None = None

    def tell(self, step: S) -> None:
        self.latest = step
        for watch in tuple(self.watchers):
            watch(step)


class Flights(Generic[T, S]):
    """Work by key. `T` is its result, `S` one step of progress. Used in the event loop's thread only."""

    def __init__(self) -> None:
        self._flights: dict[str, _Flight[T, S]] = {}

    async def join(self, key: str, work: Callable[[Callable[[S], None]], Awaitable[T]], watch: Callable[[S], None]) -> T:
        """The result of the work of this key, which is begun unless it is under way. Errors: the work's."""
        while (flight := self._flights.get(key)) is not None and not flight.watchers:
            await asyncio.wait([flight.task] if flight.task else [])  # it is being cancelled
        if flight is None:
            flight = _Flight[T, S]()
            self._flights[key] = flight
            flight.task = asyncio.get_running_loop().create_task(self._run(key, flight, work))
        elif flight.latest is not None:
            watch(flight.latest)
        flight.watchers.append(watch)
        assert flight.task is not None
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.watchers.remove(watch)
            if not flight.watchers and not flight.task.done():
                flight.task.cancel()
                await asyncio.wait([flight.task])

    async def _run(self, key: str, flight: _Flight[T, S], work: Callable[[Callable[[S], None]], Awaitable[T]]) -> T:
        try:
            return await work(flight.tell)
        finally:
            del self._flights[key]


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended a group of tasks; the others are only its consequence."""
    error = group.exceptions[0]
    return first_error(error) if isinstance(error, BaseExceptionGroup) else error
