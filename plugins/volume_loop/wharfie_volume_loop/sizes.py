"""Sizes as Docker's users write them."""

from __future__ import annotations

import re

MINIMUM = 4 * 1024 * 1024
"""Below it the file system's own tables leave hardly anything."""

_BLOCK = 4096
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def parse(text: str) -> int:
    """Bytes from "64m", up to whole blocks. Errors: ValueError with a text that says what can be written."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid size: '{text}' (examples: 64m, 1.5g)")
    size = -(-int(float(match[1]) * 1024 ** _POWER[match[2].lower()]) // _BLOCK) * _BLOCK
    if size < MINIMUM:
        raise ValueError(f"size {text} is too small: a file system needs at least {MINIMUM // 2**20}m")
    return size
