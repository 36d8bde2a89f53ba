"""`userns-remap`: whose subordinate ids containers have (subuid(5), subgid(5))."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Mapping
from pathlib import Path

from wharfie.engine.settings import Users
from wharfie.spi.errors import InvalidArgument, Unsupported

DEFAULT_USER = "dockremap"
"""Whose ids they are with the value "default"; Docker's name."""
KERNEL = (5, 19)
"""The first one whose overlay takes layers with mapped ids."""


def remapped(value: str, subuid: Path = Path("/etc/subuid"), subgid: Path = Path("/etc/subgid")) -> Users | None:
    """The mapping that a value of the key asks for; None for "", the host's own ids. Values are "default", USER and
    USER:GROUP, by name or number.

    Errors: InvalidArgument (no such user or group, or one without subordinate ids).
    """
    if not value:
        return None
    user, _, group = (DEFAULT_USER if value == "default" else value).partition(":")
    name, uid = _user(user, value)
    owner, gid = _group(group) if group else (name, uid)
    return Users(uids=_ranges(subuid, name, uid), gids=_ranges(subgid, owner, gid))


def check_kernel(users: Users | None, kernel: tuple[int, int]) -> None:
    """Errors: Unsupported (this kernel maps no ids of an overlay's layers)."""
    if users is not None and kernel < KERNEL:
        raise Unsupported(f"userns-remap needs Linux {KERNEL[0]}.{KERNEL[1]} or later; this is {kernel[0]}.{kernel[1]}")


def root_of(users: Users) -> tuple[int, int]:
    """Whom user and group 0 of containers are on the host."""
    return users.uids[0]["hostID"], users.gids[0]["hostID"]


def _user(text: str, value: str) -> tuple[str, int]:
    try:
        found = pwd.getpwuid(int(text)) if text.isdecimal() else pwd.getpwnam(text)
    except KeyError:
        fix = ""
        if value == "default":
            fix = f": make it with `useradd --system {text}`, and give it ids in /etc/subuid and /etc/subgid"
        raise InvalidArgument(f"userns-remap: there is no user {text}{fix}") from None
    return found.pw_name, found.pw_uid


def _group(text: str) -> tuple[str, int]:
    try:
        found = grp.getgrgid(int(text)) if text.isdecimal() else grp.getgrnam(text)
    except KeyError:
        raise InvalidArgument(f"userns-remap: there is no group {text}") from None
    return found.gr_name, found.gr_gid


def _ranges(path: Path, name: str, number: int) -> tuple[Mapping[str, int], ...]:
    """All of the owner's, one after the other from id 0 on, in the file's order."""
    found: list[Mapping[str, int]] = []
    inside = 0
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InvalidArgument(f"userns-remap: {path}: {error.strerror}") from error
    for line in lines:
        owner, _, rest = line.strip().partition(":")
        first, _, count = rest.partition(":")
        if owner in (name, str(number)) and first.isdecimal() and count.isdecimal() and int(count):
            found.append({"containerID": inside, "hostID": int(first), "size": int(count)})
            inside += int(count)
    if not found:
        raise InvalidArgument(f"userns-remap: {name} has no subordinate ids in {path}; add a line {name}:100000:65536")
    return tuple(found)
