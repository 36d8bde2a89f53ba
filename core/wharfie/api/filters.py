"""The `filters` parameter in its two JSON forms: `{"label": ["a=b"]}` and `{"label": {"a=b": true}}`."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from wharfie.spi.errors import InvalidArgument

Filters = dict[str, list[str]]


def parse(text: str) -> Filters:
    """Both forms as a mapping of name to values; of the boolean form only what is true stays.

    Which names exist is for the engine to say. Errors: InvalidArgument.
    """
    if not text:
        return {}
    try:
        document = from_json(text.encode())
    except ValueError:
        raise InvalidArgument("invalid filter") from None
    if not isinstance(document, dict):
        raise InvalidArgument("invalid filter")
    return {name: _values(values) for name, values in document.items()}


def _values(values: Any) -> list[str]:
    if isinstance(values, dict) and all(isinstance(wanted, bool) for wanted in values.values()):
        return [value for value, wanted in values.items() if wanted]
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        return values
    if values is None:
        return []
    raise InvalidArgument("invalid filter")
