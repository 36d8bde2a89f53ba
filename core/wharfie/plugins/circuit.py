"""When to stop asking a driver that keeps failing, and when to ask again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

FAILURES = 5
"""So many failures in a row …"""
WINDOW = 60.0
"""… within so many seconds open the circuit."""
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 60.0


class Circuit:
    """One driver's. Closed: calls pass. Open: refused for a pause; then one probe decides.

    Only failures that the driver did not name and passed deadlines are reported here; what the caller did wrong says
    nothing about the driver's health. Used from the event loop's thread only.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: deque[float] = deque(maxlen=FAILURES)
        self._until: float | None = None
        self._pause = FIRST_PAUSE
        self.cause = ""

    @property
    def open(self) -> bool:
        """Are calls refused until a probe succeeds?"""
        return self._until is not None

    def wait(self) -> float:
        """Seconds until a probe may be made, at most the pause; 0 when it may, or when the circuit is closed."""
        # A difference of floats may be more than what was added by the last bit.
        return 0.0 if self._until is None else min(max(0.0, self._until - self._clock()), self._pause)

    def succeeded(self) -> None:
        """A call came back well."""
        self._failures.clear()

    def failed(self, cause: str) -> None:
        """A call failed, or outlived its deadline."""
        now = self._clock()
        self.cause = cause
        self._failures.append(now)
        if not self.open and len(self._failures) == FAILURES and now - self._failures[0] <= WINDOW:
            self._until = now + self._pause

    def probe_failed(self, cause: str) -> None:
        """The probe failed: a pause twice as long, up to `LONGEST_PAUSE`."""
        self.cause = cause
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        self._until = self._clock() + self._pause

    def close(self) -> None:
        """The probe succeeded."""
        self._failures.clear()
        self._until = None
        self._pause = FIRST_PAUSE
        self.cause = ""
