"""Propagation of a bind: whether the host's mount can take part in it (mount_namespaces(7))."""

from __future__ import annotations

import os
import re
from pathlib import Path

from wharfie.spi.errors import WharfieError

_OCTAL = re.compile(rb"\\([0-7]{3})")


def check(source: str, propagation: str) -> None:
    """`shared` wants a shared mount below it, `slave` a shared one or a slave; else nothing would ever arrive.

    Errors: WharfieError with Docker's texts.
    """
    kind = propagation.removeprefix("r")
    if kind not in ("shared", "slave"):
        return
    path = os.path.realpath(source)
    point, fields = _mount_of(os.fsencode(path))
    is_shared = any(field.startswith(b"shared:") for field in fields)
    is_slave = any(field.startswith(b"master:") for field in fields)
    if is_shared or (kind == "slave" and is_slave):
        return
    what = "a shared mount" if kind == "shared" else "a shared or slave mount"
    raise WharfieError(f"path {source} is mounted on {os.fsdecode(point)} but it is not {what}")


def _mount_of(path: bytes) -> tuple[bytes, list[bytes]]:
    """The innermost mount that holds the path, and its optional fields (proc(5), mountinfo)."""
    found: tuple[bytes, list[bytes]] = (b"/", [])
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        words = line.split(b" ")
        point = _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), words[4])
        below = point if point == b"/" else point + b"/"
        if (path == point or path.startswith(below)) and len(point) >= len(found[0]):
            found = (point, words[6 : words.index(b"-")])
    return found
