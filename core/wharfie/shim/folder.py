"""A container's folder, `<run>/<id>/`: where its shim and its daemons meet.

Nothing in it is synced to the disk: it does not outlive a reboot, and neither does the container.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

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


def write(path: Path, content: Any) -> None:
    """Replace a file as a whole."""
    name = str(path)
    file = os.open(name + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        rest = json.dumps(content, default=str).encode()
        while rest:
            rest = rest[os.write(file, rest) :]
    finally:
        os.close(file)
    Path(name + ".new").rename(path)


def read(path: Path) -> Any:
    """The content, or None when there is none that can be read."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def remove(folder: Path) -> None:
    """Remove a container's folder. May be repeated.

    Name by name, and the root's place only when it is empty: were a root ever mounted there, a removal of the whole tree
    would be one of the container's files.
    """
    for name in (SOCKET, SHIM_PID, STATE, EXIT, LOG, REQUEST):
        for path in (folder / name, folder / (name + ".new")):
            path.unlink(missing_ok=True)
    for path in (folder / ROOT, folder):
        try:
            path.rmdir()
        except FileNotFoundError:
            pass
