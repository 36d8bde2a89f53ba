"""Types of query parameters, read as Docker reads them. A bad one is a 400 in the words of Docker's daemon."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import Depends, Query
from pydantic import BeforeValidator

from wharfie.api.filters import parse
from wharfie.spi.errors import InvalidArgument

_FALSE = frozenset({"", "0", "no", "false", "none"})
_INT64 = range(-(2**63), 2**63)
_TIME = re.compile(r"(-?\d+)(?:\.(\d{1,9}))?")


def flag(value: Any) -> Any:
    """True unless empty, 0, no, false or none."""
    return value.strip().lower() not in _FALSE if isinstance(value, str) else value


def integer(value: Any) -> Any:
    """None when empty. Errors: InvalidArgument."""
    if not isinstance(value, str):
        return value
    if not value:
        return None
    if re.fullmatch(r"[+-]?\d{1,19}", value) is None or int(value) not in _INT64:
        raise InvalidArgument(f'strconv.Atoi: parsing "{value}": invalid syntax')
    return int(value)


def _nanoseconds(value: Any) -> Any:
    """Seconds since the epoch with up to nine decimals, as nanoseconds."""
    if not isinstance(value, str):
        return value
    if not value:
        return None
    match = _TIME.fullmatch(value)
    if match is None or len(match[1]) > 11:
        raise InvalidArgument(f'invalid timestamp "{value}": expected seconds since 1970, with up to nine decimals')
    return int(match[1]) * 10**9 + int((match[2] or "0").ljust(9, "0"))


async def _filters(filters: str = "") -> Mapping[str, Sequence[str]]:
    return parse(filters)


Flag = Annotated[bool, BeforeValidator(flag), Query()]
Integer = Annotated[int | None, BeforeValidator(integer), Query()]
Nanoseconds = Annotated[int | None, BeforeValidator(_nanoseconds), Query()]
Text = Annotated[str, Query()]
Texts = Annotated[list[str], Query()]
"""A parameter that may be repeated."""
Filters = Annotated[Mapping[str, Sequence[str]], Depends(_filters)]
