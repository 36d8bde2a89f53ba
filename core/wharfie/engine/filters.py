"""Filters of list and prune requests, as the engine's rules read them.

The API has decoded both JSON forms into a mapping of name to values; which names an object knows is said here by each
caller, and an unknown one is an error (`invalid filter 'x'`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from wharfie.spi.errors import InvalidArgument

Filters = Mapping[str, Sequence[str]]

_DURATION = re.compile(r"(\d{1,18}(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNIT_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_TRUE = frozenset({"1", "t", "true"})
_FALSE = frozenset({"0", "f", "false"})


def check(filters: Filters, known: Collection[str]) -> None:
    """Errors: InvalidArgument for the first name that is not known."""
    for name in filters:
        if name not in known:
            raise InvalidArgument(f"invalid filter '{name}'")


def labels_match(filters: Filters, labels: Mapping[str, str]) -> bool:
    """All of `label` (KEY or KEY=VALUE) are there and none of `label!`."""
    return all(_label(wanted, labels) for wanted in filters.get("label", ())) and not any(
        _label(unwanted, labels) for unwanted in filters.get("label!", ())
    )


def _label(expression: str, labels: Mapping[str, str]) -> bool:
    key, has_value, value = expression.partition("=")
    return key in labels and (not has_value or labels[key] == value)


def boolean(filters: Filters, name: str, default: bool) -> bool:
    """A filter that is true or false. Errors: InvalidArgument."""
    values = {value.lower() for value in filters.get(name, ())}
    if not values:
        return default
    if values <= _TRUE:
        return True
    if values <= _FALSE:
        return False
    raise InvalidArgument(f"invalid filter '{name}={next(iter(filters[name]))}'")


def path_match(pattern: str, text: str) -> bool:
    """Go's path.Match: `*` and `?` stop at a slash, `[a-z]` and `[^a-z]` are one character, a backslash takes the next one
    as it is. Errors: InvalidArgument (another form)."""
    return re.fullmatch(_path_pattern(pattern), text, re.DOTALL) is not None


_ITEM = r"(?:\\.|[^\\\]])"
_PIECES = re.compile(rf"(\*)|(\?)|\[(\^?)((?:{_ITEM}(?:-{_ITEM})?)+)\]|\\(.)|([^\\\[*?])", re.DOTALL)


def _path_pattern(pattern: str) -> str:
    at, chunks = 0, [""]
    while at < len(pattern):
        piece = _PIECES.match(pattern, at)
        if piece is None:
            raise InvalidArgument("syntax error in pattern")
        at = piece.end()
        if piece[1]:
            chunks.append("")
        elif piece[2]:
            chunks[-1] += "[^/]"
        elif piece[4]:
            chunks[-1] += f"[{piece[3]}{_ranges(piece[4])}]"
        else:
            chunks[-1] += re.escape(piece[5] or piece[6])
    first, *others = chunks
    if not others:
        return first
    # Where a chunk fits first is right, as Go has it; nothing is tried again, or many stars would take for ever.
    return first + "".join(f"(?>[^/]*?{chunk})" for chunk in others[:-1]) + f"[^/]*{others[-1]}"


def _ranges(text: str) -> str:
    """The inside of a character class; a range that ends before it begins is empty."""
    made = ""
    for item in re.finditer(rf"({_ITEM})(?:-({_ITEM}))?", text, re.DOTALL):
        low, high = (end[-1] for end in (item[1], item[2] or item[1]))
        made += f"{re.escape(low)}-{re.escape(high)}" if low <= high else ""
    return made or r"\0"


def text_match(patterns: Sequence[str], text: str) -> bool:
    """Whether any pattern, a regular expression as Docker takes it for names, is found in the text."""
    for pattern in patterns:
        try:
            if re.search(pattern, text):
                return True
        except re.error:
            if pattern in text:
                return True
    return False


def moment(text: str, now_ns: int) -> int:
    """A point in time: Unix seconds with a fraction, RFC 3339, a date, or a duration back from now; nanoseconds.

    Errors: InvalidArgument.
    """
    if re.fullmatch(r"\d{1,18}(\.\d*)?", text):
        seconds, _, fraction = text.partition(".")
        return int(seconds) * 10**9 + int(fraction[:9].ljust(9, "0") or 0)
    if text and _DURATION.sub("", text) == "":
        return now_ns - sum(int(float(number) * _UNIT_NS[unit]) for number, unit in _DURATION.findall(text))
    try:
        return int(datetime.fromisoformat(text).timestamp() * 10**9)
    except ValueError:
        raise InvalidArgument(f'invalid time "{text}": want Unix seconds, RFC 3339 or a duration such as 10m') from None
