"""What the CLI shows while an image moves: Docker's JSON messages (`pkg/jsonmessage`), at most ten a second for a layer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

Progress = Callable[[Mapping[str, Any]], None]
"""Takes one message; must not block."""

INTERVAL = 0.1
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_WIDTH = 50


def human_size(size: float) -> str:
    """Decimal units with four significant digits: "1.984MB"."""
    unit = 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size /= 1000
        unit += 1
    return f"{size:.4g}{_UNITS[unit]}"


def bar(current: int, total: int) -> str:
    """The text beside a layer: "[=====>     ]  1.2MB/3.4MB"."""
    if total <= 0:
        return f"{human_size(current):>8}"
    filled = min(current * _WIDTH // total, _WIDTH)
    box = f"[{'=' * filled}>{' ' * (_WIDTH - filled)}] "
    if current > total:
        return f"{box}{human_size(current):>8}"
    return f"{box}{human_size(current):>8}/{human_size(total)}"


class LayerLine:
    """The line of one layer."""

    def __init__(self, progress: Progress, id: str) -> None:
        self._progress = progress
        self._id = id
        self._last = 0.0
        self._status = ""

    def status(self, status: str) -> None:
        """A step without figures; said once."""
        if status != self._status:
            self._status = status
            self._progress({"status": status, "progressDetail": {}, "id": self._id})

    def moved(self, status: str, current: int, total: int) -> None:
        """Bytes done of bytes in all. The first and the last are always said, those between at most ten a second."""
        now = time.monotonic()
        if status == self._status and current < total and now - self._last < INTERVAL:
            return
        self._status = status
        self._last = now
        detail = {"current": current, "total": total} if total > 0 else {"current": current}
        self._progress({"status": status, "progressDetail": detail, "progress": bar(current, total), "id": self._id})
