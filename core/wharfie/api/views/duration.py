"""Time spans in words, as `docker ps` shows them."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache


@lru_cache(maxsize=4096)  # lists ask for the same times again and again
def parse(moment: str) -> float:
    """RFC 3339 with any number of decimals and any offset, as seconds since the epoch."""
    whole, rest = moment[:19], moment[19:]
    offset = rest.lstrip(".0123456789")
    fraction = rest[1 : len(rest) - len(offset)]
    seconds = datetime.fromisoformat(whole + ("+00:00" if offset == "Z" else offset)).timestamp()
    return seconds + float(f"0.{fraction or 0}")


def words(seconds: float) -> str:
    """About how long: "Less than a second", "5 minutes", "About an hour", "3 weeks"."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    days = hours // 24
    if hours < 24 * 7 * 2:
        return f"{days} days"
    if hours < 24 * 30 * 2:
        return f"{days // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{days // 30} months"
    return f"{days // 365} years"
