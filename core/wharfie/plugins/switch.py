"""`disabled-plugins` of daemon.json, edited in place: all else in the file stays as somebody wrote it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from json.decoder import scanstring  # type: ignore[attr-defined]  # documented by nobody, and in json since 2.6
from pathlib import Path

from wharfie.plugins.contract import CONTRACTS
from wharfie.spi.errors import InvalidArgument, from_os_error

KEY = "disabled-plugins"
_BLANK = " \t\r\n"


def check_key(key: str) -> None:
    """Is `key` one for `disabled-plugins`: KIND.NAME of a driver, or a hook plugin's name? Errors: InvalidArgument."""
    kind, dot, name = key.partition(".")
    if not key or (dot and (kind not in CONTRACTS or not name)):
        raise InvalidArgument(f"{key!r}: write KIND.NAME, for example volume.local; kinds are {', '.join(CONTRACTS)}")


def set_disabled(path: Path, key: str, *, disabled: bool) -> bool:
    """Put `key` into the file's list, or take it out. False: it was so already, and the file is not touched.

    The file is replaced by one rename, with its mode and owner. Errors: InvalidArgument (the file is no JSON object, or the
    list is none), the errors of writing a file.
    """
    check_key(key)
    try:
        target = path.resolve()
        text = target.read_text() if target.exists() else ""
        edited = edit(text, key, disabled=disabled, where=str(path))
        if edited == text:
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(target, edited)
    except OSError as error:
        raise from_os_error(error) from error
    return True


def edit(text: str, key: str, *, disabled: bool, where: str) -> str:
    """The file's text with `key` in its list, or not. Errors: InvalidArgument."""
    if not text.strip():
        return f"{{\n  {json.dumps(KEY)}: {json.dumps([key])}\n}}\n" if disabled else text
    try:
        document = json.loads(text)
        if not isinstance(document, dict):
            raise ValueError("expected one JSON object")
        listed = document.get(KEY, [])
        if not isinstance(listed, list):
            raise ValueError(f"{KEY} is no list")
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{where}: {error}") from None
    if (key in listed) == disabled:
        return text
    value = json.dumps([*listed, key] if disabled else [one for one in listed if one != key])
    spans = list(_members(text))
    for name, start, end in spans:
        if name == KEY:
            return text[:start] + value + text[end:]
    if not spans:
        return f"{{\n  {json.dumps(KEY)}: {value}\n}}\n"
    first = text.index('"')
    gap = text[text.index("{") + 1 : first]  # how this file sets its keys apart
    last = spans[-1][2]
    return f"{text[:last]},{gap or ' '}{json.dumps(KEY)}: {value}{text[last:]}"


def _members(text: str) -> Iterator[tuple[str, int, int]]:
    """The object's keys with the place of each value. `text` is known to be a JSON object."""
    decoder = json.JSONDecoder()
    place = _after_blank(text, text.index("{") + 1)
    while text[place] != "}":
        name, place = scanstring(text, place + 1)
        start = _after_blank(text, _after_blank(text, place) + 1)
        _, end = decoder.raw_decode(text, start)
        yield name, start, end
        place = _after_blank(text, end)
        if text[place] == ",":
            place = _after_blank(text, place + 1)


def _after_blank(text: str, place: int) -> int:
    while text[place] in _BLANK:
        place += 1
    return place


def _replace(path: Path, text: str) -> None:
    old = path.stat() if path.exists() else None
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), old.st_mode & 0o7777 if old else 0o644)
            if old is not None:
                os.fchown(file.fileno(), old.st_uid, old.st_gid)
            os.fsync(file.fileno())
        os.replace(name, path)  # noqa: PTH105  # the name is mkstemp's
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
