"""inotify(7), the two calls of it that are needed: a descriptor that is readable when a folder's files have changed."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from wharfie.spi.errors import Unavailable, from_os_error

IN_MODIFY = 0x00000002
IN_MOVED_TO = 0x00000080
IN_CREATE = 0x00000100
ANY = IN_MODIFY | IN_MOVED_TO | IN_CREATE
NAMES = IN_MOVED_TO | IN_CREATE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.inotify_init1.argtypes = (ctypes.c_int,)
_libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)


def watch(folder: Path, mask: int = ANY) -> int:
    """`mask`: ANY change, or one of NAMES alone.

    Errors: Unavailable (the kernel's limits of instances or watches are reached).
    """
    fd = int(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    if fd < 0:
        raise _error("inotify_init1", folder, ctypes.get_errno())
    if _libc.inotify_add_watch(fd, os.fsencode(folder), mask) < 0:
        number = ctypes.get_errno()
        os.close(fd)
        raise _error("inotify_add_watch", folder, number)
    return fd


def drain(fd: int) -> None:
    """Forget the changes so far."""
    try:
        while os.read(fd, 64 * 1024):
            pass
    except BlockingIOError:
        pass


def _error(call: str, folder: Path, number: int) -> Exception:
    if number in (errno.EMFILE, errno.ENOSPC):
        limit = "max_user_instances" if number == errno.EMFILE else "max_user_watches"
        return Unavailable(
            f"cannot follow the log in {folder}: {call}: {os.strerror(number)}; too many logs are followed at once, "
            f"raise the kernel's limit with `sysctl fs.inotify.{limit}=…`"
        )
    return from_os_error(OSError(number, f"{call}: {os.strerror(number)}", str(folder)))
