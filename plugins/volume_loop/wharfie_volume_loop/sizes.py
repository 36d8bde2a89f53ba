"""Sizes of volumes."""

from __future__ import annotations

from wharfie.spi import sizes

MINIMUM = 4 * 1024 * 1024
"""Below it the file system's own tables leave hardly anything."""

_BLOCK = 4096


def parse(text: str) -> int:
    """Bytes from "64m", up to whole blocks. Errors: ValueError with a text that says what can be written."""
    size = -(-sizes.parse(text) // _BLOCK) * _BLOCK
    if size < MINIMUM:
        raise ValueError(f"size {text} is too small: a file system needs at least {MINIMUM // 2**20}m")
    return size
