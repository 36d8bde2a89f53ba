"""Sizes as Docker's users write them (go-units): a number and a letter."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_END = 2**63


def parse(text: str, unit: int = 1024) -> int:
    """Bytes from "10m", "1.5GiB" or "512". Errors: ValueError with a text that says what can be written."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid size: '{text}' (examples: 500k, 10m, 1.5g)")
    size = float(match[1]) * unit ** _POWER[match[2].lower()]
    if size >= _END:
        raise ValueError(f"invalid size: '{text}' is more than a number of 64 bits holds")
    return int(size)
