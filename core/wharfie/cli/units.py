"""Sizes and times as people write them and as Docker's tables show them."""

from __future__ import annotations

import re
import time
from datetime import datetime

import click

_BYTES = re.compile(r"(-?\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def size(text: str) -> int:
    """Bytes of "64m", in powers of 1024; -1 stays -1. Errors: click.BadParameter."""
    match = _BYTES.fullmatch(text)
    if match is None:
        raise click.BadParameter(f"invalid size: {text!r} (examples: 64m, 1.5g)")
    return int(float(match[1]) * 1024 ** _POWERS[match[2].lower()])


def nanoseconds(text: str) -> int:
    """Of "1m30s". Errors: click.BadParameter."""
    seconds = duration(text)
    if seconds is None:
        raise click.BadParameter(f"invalid duration: {text!r} (examples: 30s, 1m30s)")
    return round(seconds * 1e9)


def duration(text: str) -> float | None:
    """Seconds from "1h30m"; None when it is no duration."""
    if text == "0":
        return 0.0
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def moment(text: str) -> str:
    """A point in time for the API: a duration means that long ago, anything else goes as it is."""
    seconds = duration(text)
    return text if seconds is None else f"{time.time() - seconds:.9f}"


def human_size(size: float, digits: int = 3) -> str:
    """Decimal, as in "187MB"."""
    for unit in _DECIMAL:
        if size < 1000 or unit == _DECIMAL[-1]:
            break
        size /= 1000
    return f"{size:.{digits}g}{unit}"


def human_duration(seconds: float) -> str:
    """As Docker says it: "About an hour"."""
    whole = int(seconds)
    minutes = whole // 60
    hours = round(seconds / 3600)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    for limit, unit, length in (
        (48, "hours", 1),
        (24 * 14, "days", 24),
        (24 * 60, "weeks", 168),
        (24 * 730, "months", 720),
    ):
        if hours < limit:
            return f"{hours // length} {unit}"
    return f"{hours // (24 * 365)} years"


def ago(created: float | str) -> str:
    """As in "3 hours ago", of Unix seconds or an RFC 3339 time."""
    if isinstance(created, str):
        created = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", created)).timestamp()
    return f"{human_duration(max(0.0, time.time() - created))} ago"
