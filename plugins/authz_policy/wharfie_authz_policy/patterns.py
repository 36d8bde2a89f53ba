"""Patterns for names and paths: `*` stands for anything within a segment, `**` for anything, `?` for one character."""

from __future__ import annotations

import functools
import re

_PARTS = re.compile(r"\*\*|\*|\?")
_MEANING = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


@functools.lru_cache(maxsize=1024)
def compiled(pattern: str) -> re.Pattern[str]:
    """A pattern as a regular expression."""
    text, end = "", 0
    for part in _PARTS.finditer(pattern):
        text += re.escape(pattern[end : part.start()]) + _MEANING[part[0]]
        end = part.end()
    return re.compile(text + re.escape(pattern[end:]), re.DOTALL)


def matches(text: str, patterns: tuple[str, ...]) -> bool:
    """Does any of the patterns stand for the whole of `text`?"""
    return any(compiled(pattern).fullmatch(text) is not None for pattern in patterns)
