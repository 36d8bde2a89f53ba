"""Paths inside a container's root, which its image or its processes may have filled with traps.

Every path is resolved by the kernel as if `root` were `/` (openat2 with RESOLVE_IN_ROOT, no magic links), and used by
descriptor from then on: nothing is checked by name and then opened by name.
"""

from __future__ import annotations

import errno
import os
import stat

from wharfie.shim.system import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2

_RESOLVE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS


def open_root(path: str) -> int:
    """A descriptor of a container's root, to be closed by the caller."""
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def open_in(root: int, path: str, flags: int = os.O_PATH) -> int:
    """Open what `path` names within `root`, following links within it. Errors: OSError."""
    return openat2(root, path.lstrip("/") or ".", flags, resolve=_RESOLVE)


def open_folder_in(root: int, path: str) -> int:
    return open_in(root, path, os.O_RDONLY | os.O_DIRECTORY)


def read_file_in(root: int, path: str, limit: int) -> bytes | None:
    """The first `limit` bytes of a regular file; None when there is none.

    What is not a regular file is never opened, only looked at: a FIFO would wait, a device might act.
    """
    try:
        found = open_in(root, path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            return None
        file = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(found)
    with open(file, "rb") as stream:
        return stream.read(limit)


def ensure_in(root: int, path: str) -> None:
    """Make an empty file at `path`, or a folder when it ends with `/`, and the folders above it, all 0755.

    What is there already stays; a link that leads nowhere is replaced, as Docker's init layer does.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise ValueError(f"mount point {path!r}: an absolute path without '..' is needed")
    folder = open_folder_in(root, "/")
    try:
        for depth, part in enumerate(parts, 1):
            is_folder = depth < len(parts) or path.endswith("/")
            try:
                child = open_in(root, "/".join(parts[:depth]))
            except FileNotFoundError:
                _make(folder, part, is_folder)
                child = open_in(root, "/".join(parts[:depth]))
            os.close(folder)
            folder = child
    finally:
        os.close(folder)


def _make(folder: int, name: str, is_folder: bool) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    if is_folder:
        os.mkdir(name, 0o755, dir_fd=folder)
    else:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o755, dir_fd=folder))
