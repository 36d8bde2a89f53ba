"""One call under way: where the worker leaves the outcome and the event loop picks it up.

The outcome is a value, never an exception that is thrown into a future: `StopIteration` would hang whoever awaits it, and
`SystemExit` would end the daemon.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from wharfie.plugins.failure import action, explain
from wharfie.plugins.worker import Job
from wharfie.spi.call import Call, enter_call
from wharfie.spi.driver import Deadline
from wharfie.spi.errors import DriverError, WharfieError

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_BOOT = os.urandom(2).hex()
_NUMBERS = itertools.count(1)


class Run(Job, Generic[T]):
    """A call of `method` on what `title` names. `settle` is called in the event loop's thread when it has returned."""

    def __init__(
        self,
        title: str,
        method: str,
        arguments: Sequence[Any],
        function: Callable[[], T],
        limit: Deadline,
        settle: Callable[[Run[T]], None],
    ) -> None:
        super().__init__()
        self.title = title
        self.method = method
        self.arguments = arguments
        self.limit = limit
        self.call = Call(id=f"{_BOOT}-{next(_NUMBERS):x}")
        self.submitted = self.call.moved
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[WharfieError | None] = self.loop.create_future()
        self.timer: asyncio.TimerHandle | None = None
        self.settled = False
        self.value: T | None = None
        self.error: WharfieError | None = None
        self.seconds = 0.0
        self._function = function
        self._settle = settle

    @property
    def action(self) -> str:
        """The call in words: `mount of "data"`."""
        return action(self.method, self.arguments)

    def due(self) -> float | None:
        """When it is late, in monotonic time; None: never. Waiting for a worker may take as long as the call itself."""
        began = self.began or self.submitted
        times = []
        if self.limit.total is not None:
            times.append(began + self.limit.total)
        if self.limit.idle is not None:
            times.append(max(began, self.call.moved) + self.limit.idle)
        return min(times, default=None)

    def work(self) -> None:
        """In the worker: call the foreign function; whatever happens is kept."""
        enter_call(self.call)
        began = self.call.moved = time.monotonic()
        try:
            self.value = self._function()
        except BaseException as error:  # noqa: BLE001  # SystemExit, KeyboardInterrupt and StopIteration are values here
            self.error = self._explain(error)
        self.seconds = time.monotonic() - began

    def _explain(self, error: BaseException) -> WharfieError:
        try:
            return explain(error, title=self.title, method=self.method, arguments=self.arguments, call=self.call.id)
        except BaseException:  # noqa: BLE001  # the exception's own attributes are foreign code, too
            return DriverError(
                f"{self.title}: {self.action} failed with an error that cannot be shown (call {self.call.id})"
            )

    def finished(self) -> None:
        """In the worker: wake the event loop, or say that nobody waits any more."""
        if self.call.cancelled.is_set():
            _LOG.log(
                logging.WARNING if self.lost else logging.INFO,
                "call %s: %s of %s came back after %.1f s, when nobody waited any more: %s",
                self.call.id,
                self.action,
                self.title,
                self.seconds,
                self.error or "its result is dropped",
            )
        try:
            self.loop.call_soon_threadsafe(self._settle, self)
        except RuntimeError:
            return  # the loop has ended, and with it everybody who could wait
