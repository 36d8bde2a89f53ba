"""The folder in which shims mount roots: made a mount of its own, so that what is mounted in it stays unseen elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

from wharfie.shim.system import MNT_DETACH, MS_BIND, MS_PRIVATE, mount, umount2


def hide_mounts(folder: Path) -> None:
    """Make `folder` a private mount in the daemon's namespace. May be repeated.

    Shims leave propagation as it is in their own namespaces; on most hosts everything is shared, and a root mounted below a
    shared mount would appear on the host too.
    """
    path = str(folder.resolve())
    if not _is_mount(path):
        mount(path, path, "none", MS_BIND)
    mount("none", path, "none", MS_PRIVATE)


def unhide_mounts(folder: Path) -> None:
    """Undo `hide_mounts`, when no container is left. May be repeated."""
    path = str(folder.resolve())
    if _is_mount(path):
        umount2(path, MNT_DETACH)


def _is_mount(path: str) -> bool:
    with open("/proc/self/mountinfo", "rb") as table:
        return any(line.split()[4].decode("unicode_escape").encode("latin-1") == os.fsencode(path) for line in table)
