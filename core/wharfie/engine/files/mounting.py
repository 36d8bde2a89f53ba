"""System calls of the newer mount interface, named as the kernel names them (include/uapi/linux/mount.h, fcntl.h)."""

from __future__ import annotations

import ctypes
import os
import threading
from typing import Final

from wharfie.shim.system import CLONE_NEWNS, setns, unshare

AT_EMPTY_PATH: Final = 0x1000
AT_RECURSIVE: Final = 0x8000
AT_SYMLINK_NOFOLLOW: Final = 0x100
CLONE_FS: Final = 0x200
MOVE_MOUNT_F_EMPTY_PATH: Final = 0x04
MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40
OPEN_TREE_CLONE: Final = 1

_NR_OPEN_TREE: Final = 428  # the same on every architecture: calls from 424 on are numbered alike
_NR_MOVE_MOUNT: Final = 429

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def open_tree(folder: int, path: str, flags: int) -> int:
    """A copy of the mount at `path`, attached nowhere; it goes with its last descriptor. Errors: OSError."""
    cloexec = os.O_CLOEXEC
    fd: int = _libc.syscall(
        ctypes.c_long(_NR_OPEN_TREE),
        ctypes.c_int(folder),
        ctypes.c_char_p(os.fsencode(path)),
        ctypes.c_uint(flags | OPEN_TREE_CLONE | cloexec | AT_EMPTY_PATH),
    )
    if fd < 0:
        raise _failed("open_tree", path)
    return fd


def copy_of_foreign(pid: int, path: str) -> int:
    """A copy of a mount in another process's mount namespace, which a bind from here cannot reach. Errors: OSError.

    A thread of its own goes there and ends there: a namespace belongs to a thread, and the threads of a pool come back.
    """
    found: list[int] = []
    failed: list[OSError] = []

    def fetch() -> None:
        try:
            unshare(CLONE_FS)  # a thread that shares its working directory may not change its mount namespace
            setns(namespace, CLONE_NEWNS)
            found.append(open_tree(-1, path, AT_SYMLINK_NOFOLLOW))
        except OSError as error:
            failed.append(error)

    namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        thread = threading.Thread(target=fetch, name="foreign-mount")
        thread.start()
        thread.join()
    finally:
        os.close(namespace)
    if failed:
        raise failed[0]
    return found[0]


def move_mount(tree: int, target: int) -> None:
    """Attach a copy on what the descriptor `target` is, both in this mount namespace. Errors: OSError."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    result: int = _libc.syscall(
        ctypes.c_long(_NR_MOVE_MOUNT),
        ctypes.c_int(tree),
        ctypes.c_char_p(b""),
        ctypes.c_int(target),
        ctypes.c_char_p(b""),
        ctypes.c_uint(flags),
    )
    if result < 0:
        raise _failed("move_mount", "")


def _failed(call: str, subject: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}", subject or None)
