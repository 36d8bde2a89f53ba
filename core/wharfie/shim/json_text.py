"""JSON by an encoder and a decoder that are made once, in the zygote: `json.dumps` and `json.loads` set themselves up anew
with each call, and what a shim so much as calls becomes its own memory."""

from __future__ import annotations

import json
from typing import Any

encode = json.JSONEncoder(separators=(",", ":"), default=str).encode
_scan = json.JSONDecoder().raw_decode


def decode(data: bytes | bytearray) -> Any:
    """Errors: ValueError (no JSON, or something after it)."""
    text = data.decode()
    value, end = _scan(text)
    if end != len(text):
        raise ValueError(f"{len(text) - end} characters after the end of the JSON text")
    return value
