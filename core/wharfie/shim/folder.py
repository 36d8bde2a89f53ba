"""A container's folder, `<run>/<id>/`: where its shim and its daemons meet.

Nothing in it is synced to the disk: it does not outlive a reboot, and neither does the container.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wharfie.shim import json_text

REQUEST = "request.json"
"""What the shim was started with."""
SOCKET = "shim.sock"
"""For daemons (see `protocol`)."""
SHIM_PID = "shim.pid"
STATE = "state.json"
"""Status and pid of the container, for when the shim does not answer."""
EXIT = "exit.json"
"""How the container ended."""
LOG = "shim.log"
"""What went wrong in the shim and nobody was told."""
ROOT = "rootfs"
"""Where the root is mounted, in the container's mount namespace."""

_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


def write(path: Path | str, content: Any) -> None:
    """Replace a file as a whole."""
    name = f"{path}"
    file = os.open(name + ".new", _WRITE, 0o600)
    try:
        rest = json_text.encode(content).encode()
        while rest:
            rest = rest[os.write(file, rest) :]
    finally:
        os.close(file)
    os.rename(name + ".new", name)  # noqa: PTH104  # here and below: a path object would cost each shim its memory


def read(path: Path | str) -> Any:
    """The content, or None when there is none that can be read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return json_text.decode(os.read(file, os.fstat(file).st_size))
        finally:
            os.close(file)
    except (OSError, ValueError):
        return None


def remove(folder: Path | str) -> None:
    """Remove a container's folder. May be repeated.

    Name by name, and the root's place only when it is empty: were a root ever mounted there, a removal of the whole tree
    would be one of the container's files.
    """
    for name in (SOCKET, SHIM_PID, STATE, EXIT, LOG, REQUEST):
        for path in (f"{folder}/{name}", f"{folder}/{name}.new"):
            _without_missing(os.unlink, path)
    for path in (f"{folder}/{ROOT}", f"{folder}"):
        _without_missing(os.rmdir, path)


def _without_missing(remove: Callable[[str], None], path: str) -> None:
    try:
        remove(path)
    except FileNotFoundError:
        pass
