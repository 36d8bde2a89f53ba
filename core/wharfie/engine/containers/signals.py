"""Signal names and numbers as users write them (signal(7))."""

from __future__ import annotations

import re
import signal

from wharfie.engine import digits
from wharfie.spi.errors import InvalidArgument

_REAL_TIME = re.compile(r"RTMIN(?:\+(\d\d?))?|RTMAX(?:-(\d\d?))?")


def parse(text: str, default: int) -> int:
    """A number or a name, with or without SIG, any case. Errors: InvalidArgument."""
    if not text:
        return default
    number = digits.number(text)
    if number is not None:
        if 0 < number <= signal.SIGRTMAX:
            return number
        raise InvalidArgument(f"invalid signal: {text}")
    name = text.upper().removeprefix("SIG")
    real_time = _REAL_TIME.fullmatch(name)
    if real_time is not None:
        offset = int(real_time[1] or real_time[2] or 0)
        number = signal.SIGRTMIN + offset if name.startswith("RTMIN") else signal.SIGRTMAX - offset
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return number
    else:
        found = getattr(signal, f"SIG{name}", None)
        if isinstance(found, signal.Signals):
            return found.value
    raise InvalidArgument(f"invalid signal: {text}")
