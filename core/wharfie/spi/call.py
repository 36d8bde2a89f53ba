"""The call in progress: lets a long loop notice that nobody waits any more, and say that it is moving.

The supervisor sets it for the worker thread before it calls a driver. Only methods that move a stream (unpack, fetch)
need it: `progress()` once for each item keeps the idle deadline away and raises `Cancelled` when the caller is gone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

from wharfie.spi.errors import Cancelled


@dataclass(slots=True)
class Call:
    """One call into a driver. Written by the worker, read by the supervisor."""

    id: str
    cancelled: threading.Event = field(default_factory=threading.Event)
    moved: float = field(default_factory=time.monotonic)
    on_cancel: Callable[[], None] | None = None  # set by who passes the call on; called in the supervisor's thread

    def cancel(self) -> None:
        """Nobody waits any more. For the supervisor."""
        self.cancelled.set()
        if self.on_cancel is not None:
            self.on_cancel()

    def check(self) -> None:
        """Raise `Cancelled` when the caller is gone or the deadline has passed."""
        if self.cancelled.is_set():
            raise Cancelled("the caller of this operation is gone")


_CURRENT: ContextVar[Call | None] = ContextVar("wharfie_call", default=None)


def current_call() -> Call | None:
    """The call that this thread serves; None outside a supervised call."""
    return _CURRENT.get()


def enter_call(call: Call) -> None:
    """Make `call` the current one of this context. For the supervisor."""
    _CURRENT.set(call)


def progress() -> None:
    """Tell the supervisor that a stream moved; raises `Cancelled` when there is nobody to move it for."""
    call = _CURRENT.get()
    if call is not None:
        call.moved = time.monotonic()
        call.check()
