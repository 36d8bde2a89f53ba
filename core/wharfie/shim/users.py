"""USER[:GROUP] resolved in a container's own passwd and group files, as Docker does.

The rules, which runtimes share with Docker: a number is an id even when an entry has it as its name; an id need not be
in the files; without a group the user's primary group counts, and the groups that list the user become supplementary;
with a group, that group alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wharfie.shim import safe_path
from wharfie.spi.errors import InvalidArgument

FILE_LIMIT = 1024 * 1024
"""Bytes of passwd and group that are looked at."""
_LARGEST_ID = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class User:
    """A resolved user. `groups`: supplementary ids, the primary one among them."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of passwd."""

    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class _Group:
    """A line of group."""

    name: str
    gid: int
    members: tuple[str, ...]


def resolve(root: int, wanted: str, more_groups: Sequence[str] = ()) -> User:
    """`wanted` empty is root. Errors: InvalidArgument in Docker's words."""
    user, _, group = wanted.partition(":")
    entry = _find_user(list(_passwd(root)), user)
    groups = list(_groups(root))
    if group:
        gid, members = _find_group(groups, group), []
    else:
        gid, members = entry.gid, [g.gid for g in groups if entry.name and entry.name in g.members]
    more = [_find_group(groups, name) for name in more_groups]
    return User(entry.uid, gid, tuple(dict.fromkeys([gid, *members, *more])), entry.home)


def _find_user(entries: list[_Entry], wanted: str) -> _Entry:
    number = _number(wanted or "0")
    for entry in entries:
        if entry.name == wanted if number is None else entry.uid == number:
            return entry
    if number is None:
        raise InvalidArgument(f"unable to find user {wanted}: no matching entries in passwd file")
    return _Entry("", number, 0, "/")


def _find_group(groups: list[_Group], wanted: str) -> int:
    number = _number(wanted)
    if number is not None:
        return number
    for group in groups:
        if group.name == wanted:
            return group.gid
    raise InvalidArgument(f"unable to find group {wanted}: no matching entries in group file")


def _number(text: str) -> int | None:
    """A decimal id, or None for a name. Errors: InvalidArgument beyond the range, where ids wrap round to root."""
    digits = text.removeprefix("-").removeprefix("+")
    if not (digits.isascii() and digits.isdigit()):
        return None
    if text.startswith("-") or len(digits) > 10 or int(digits) > _LARGEST_ID:
        raise InvalidArgument(f"uids and gids must be in range 0-{_LARGEST_ID}: {text}")
    return int(digits)


def _lines(root: int, path: str) -> Iterator[list[str]]:
    data = safe_path.read_file_in(root, path, FILE_LIMIT) or b""
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        if line and not line.startswith("#"):
            yield line.strip().split(":")


def _passwd(root: int) -> Iterator[_Entry]:
    for fields in _lines(root, "etc/passwd"):
        if len(fields) >= 4 and _is_id(fields[2]) and _is_id(fields[3]):
            home = fields[5] if len(fields) > 5 else ""
            yield _Entry(fields[0], int(fields[2]), int(fields[3]), home or "/")


def _groups(root: int) -> Iterator[_Group]:
    for fields in _lines(root, "etc/group"):
        if len(fields) >= 3 and _is_id(fields[2]):
            members = fields[3].split(",") if len(fields) > 3 and fields[3] else []
            yield _Group(fields[0], int(fields[2]), tuple(members))


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _LARGEST_ID


def apply(process: Mapping[str, Any], user: User) -> dict[str, Any]:
    """An OCI `process` that runs as `user`, with HOME unless its environment has one."""
    env = list(process.get("env") or ())
    if not any(entry.startswith("HOME=") for entry in env):
        env.append(f"HOME={user.home}")
    known = process.get("user") or {}
    return {**process, "env": env, "user": {**known, "uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)}}
