"""RFC 3339 timestamps, read fast: neighbours in a log mostly share their second."""

from __future__ import annotations

from datetime import datetime


class StampReader:
    """Turns the stamps of one log into nanoseconds."""

    def __init__(self) -> None:
        self._second = ""
        self._seconds_ns = 0

    def nanoseconds(self, stamp: str) -> int:
        """Since the epoch, from "2026-11-24T16:48:10.597251234Z". Errors: ValueError."""
        if not stamp.endswith("Z"):
            return round(datetime.fromisoformat(stamp).timestamp() * 1_000_000) * 1000
        second, _, fraction = stamp[:-1].partition(".")
        if second != self._second:
            self._seconds_ns = int(datetime.fromisoformat(second + "+00:00").timestamp()) * 1_000_000_000
            self._second = second
        return self._seconds_ns + int(fraction.ljust(9, "0")[:9]) if fraction else self._seconds_ns
