"""Numbers in what users write. Python itself converts no text of more than 4300 digits, and takes digits of all scripts."""

from __future__ import annotations

LENGTH = 18
"""As many digits as any number of 64 bits may have."""


def number(text: str) -> int | None:
    """A whole number without a sign; None for anything else, and for what is too long to mean anything."""
    return int(text) if len(text) <= LENGTH and text.isascii() and text.isdecimal() else None
