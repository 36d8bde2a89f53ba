"""Ids, names and times as Docker writes them."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cache, lru_cache
from importlib import resources

from wharfie.spi.errors import InvalidArgument

NAME_PATTERN = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
NAME_CHARACTERS = "[a-zA-Z0-9][a-zA-Z0-9_.-]"


def new_id() -> str:
    """64 random hex digits whose first twelve are not all decimal, so that a short id is never taken for a number."""
    while True:
        candidate = secrets.token_hex(32)
        if not candidate[:12].isdecimal():
            return candidate


def rfc3339(time_ns: int | None = None) -> str:
    """A wall clock time (nanoseconds since the epoch; default now) in UTC, as Go's RFC3339Nano writes it."""
    at = time.time_ns() if time_ns is None else time_ns
    seconds, fraction = divmod(at, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"


_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")


@lru_cache(maxsize=4096)  # lists are sorted by it
def parse_rfc3339(text: str) -> int:
    """Nanoseconds since the epoch; 0 for Go's zero time. Any offset, and any number of decimals.

    Errors: ValueError.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"not a time: {text!r}")
    if text.startswith("0001-"):
        return 0
    whole = datetime.fromisoformat(text[:19] + ("+00:00" if match[8] == "Z" else match[8]))
    return int(whole.timestamp()) * 1_000_000_000 + int((match[7] or "")[:9].ljust(9, "0"))


def check_volume_name(name: str) -> None:
    """Errors: InvalidArgument with Docker's texts."""
    if NAME_PATTERN.fullmatch(name) is not None:
        return
    if len(name) == 1:
        raise InvalidArgument(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    raise InvalidArgument(
        f'create {name}: "{name}" includes invalid characters for a local volume name, only "{NAME_CHARACTERS}" are '
        "allowed. If you intended to pass a host directory, use absolute path"
    )


def check_name(name: str) -> str:
    """A container's name without its leading slash. Errors: InvalidArgument with Docker's text."""
    bare = name.removeprefix("/")
    if NAME_PATTERN.fullmatch(bare) is None:
        raise InvalidArgument(f"Invalid container name ({name}), only {NAME_CHARACTERS} are allowed")
    return bare


@cache
def _words(file: str) -> tuple[str, ...]:
    return tuple(resources.files("wharfie.engine").joinpath(file).read_text().split())


def generate_name(taken: Callable[[str], bool], fallback: str) -> str:
    """A free name of two words; a digit is added from the second try on, and after six the fallback is taken."""
    left, right = _words("name_qualities.txt"), _words("name_things.txt")
    for attempt in range(6):
        name = f"{secrets.choice(left)}_{secrets.choice(right)}" + (str(secrets.randbelow(10)) if attempt else "")
        if not taken(name):
            return name
    return fallback


def by_prefix(ids: Iterable[str], prefix: str) -> str | None:
    """The one id that starts with `prefix`. Errors: InvalidArgument when there are several."""
    matches = [candidate for candidate in ids if candidate.startswith(prefix)] if prefix else []
    if len(matches) > 1:
        raise InvalidArgument(f"multiple IDs found with provided prefix: {prefix}")
    return matches[0] if matches else None
