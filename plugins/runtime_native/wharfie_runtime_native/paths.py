"""Paths inside a container's root, used by descriptor only.

Whoever made the image, or runs another container on the same volume, may put links anywhere and swap them at any
time. So a path is resolved by the kernel within the root (openat2 with RESOLVE_IN_ROOT), exactly once, and what is
then mounted on, read or written is the descriptor (CVE-2021-30465, CVE-2019-19921, CVE-2023-27561).
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from wharfie.spi.errors import InvalidArgument
from wharfie_runtime_native.constants import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS
from wharfie_runtime_native.syscalls import openat2

_LINKS: Final = 40  # as many as the kernel follows in one path


def open_in_root(root: int, path: str, flags: int = os.O_PATH) -> int:
    """A descriptor of `path` within the folder `root`. "/" and absolute links start at `root`; magic links (those of
    /proc/<pid>/fd) are refused. Errors: OSError."""
    # The kernel refuses with EAGAIN when a rename happened meanwhile that could have led outside.
    for _ in range(128):
        try:
            return openat2(root, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
        except BlockingIOError:
            continue
    raise InvalidArgument(f'"{path}" cannot be opened in the container: something keeps renaming parts of it')


def make_in_root(root: int, path: str, *, directory: bool, mode: int = 0o755) -> int:
    """Open `path` within `root` and make what is missing of it: folders of mode 0755, and at the end a folder or an
    empty file. Links that lead nowhere are followed and their target is made, inside the root like all else.

    Errors: InvalidArgument (a file stands where a folder is needed, too many links), OSError.
    """
    try:
        return open_in_root(root, path)
    except FileNotFoundError:
        pass
    parts = [part for part in path.split("/") if part not in ("", ".")]
    links = 0
    done = 0
    while True:
        # Find the first component that is missing; all before it can be opened.
        parent = open_in_root(root, "/".join(parts[:done]) or "/")
        try:
            if done == len(parts):
                return os.dup(parent)
            name = parts[done]
            try:
                os.close(open_in_root(root, "/".join(parts[: done + 1])))
                done += 1
                continue
            except FileNotFoundError:
                pass
            except NotADirectoryError:
                raise InvalidArgument(f'"/{"/".join(parts[:done])}" in the container is not a directory') from None
            try:
                if directory or done + 1 < len(parts):
                    os.mkdir(name, mode if done + 1 == len(parts) else 0o755, dir_fd=parent)
                else:
                    created = os.open(
                        name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode & 0o644, dir_fd=parent
                    )
                    os.close(created)
            except FileExistsError:
                links += 1
                if links > _LINKS:
                    raise OSError(errno.ELOOP, f"{path}: too many links") from None
                try:
                    target = os.readlink(name, dir_fd=parent)
                except OSError as error:
                    if error.errno in (errno.EINVAL, errno.ENOENT):  # made, or removed, by somebody else meanwhile
                        continue
                    raise
                before = [] if target.startswith("/") else parts[:done]
                parts = _clean([*before, *target.split("/"), *parts[done + 1 :]])
                done = 0
            else:
                done += 1
        finally:
            os.close(parent)


def _clean(parts: list[str]) -> list[str]:
    kept: list[str] = []
    for part in parts:
        if part == "..":
            kept = kept[:-1]
        elif part not in ("", "."):
            kept.append(part)
    return kept


def proc_fd(fd: int) -> str:
    """A name for a descriptor, for calls that want a path. Only while the host's /proc is there."""
    return f"/proc/self/fd/{fd}"


def is_directory(fd: int) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode)
