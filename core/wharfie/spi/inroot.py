"""Files inside a folder that somebody else filled: opened by descriptor, never outside of it.

The kernel resolves every name as if the folder were `/` (openat2(2) with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS):
absolute links and `..` stay inside, and what is found is used by its descriptor, so nothing can be swapped between look
and use.
"""

from __future__ import annotations

import ctypes
import errno
import os

from wharfie.spi.errors import Unsupported

_NR_OPENAT2 = 437  # the same on every architecture: calls from 424 on are numbered alike
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
"""Flags of a folder that is listed or worked in."""


class _OpenHow(ctypes.Structure):
    """struct open_how of linux/openat2.h."""

    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.syncfs.argtypes = (ctypes.c_int,)


def open_in_root(root: int, path: bytes, flags: int) -> int:
    """Open what `path` names within the folder `root`; the caller closes it. `flags` as in open(2), without O_CREAT.

    Errors: OSError as of open(2), with `path`; Unsupported before Linux 5.6.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    while True:
        fd: int = _libc.syscall(
            ctypes.c_long(_NR_OPENAT2),
            ctypes.c_int(root),
            ctypes.c_char_p(path or b"."),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number == errno.ENOSYS:
            raise Unsupported("openat2(2) is missing: layers are unpacked safely only on Linux 5.6 or newer")
        # EAGAIN: something was renamed while `..` was followed, and the kernel could not tell whether it left the root.
        if number not in (errno.EAGAIN, errno.EINTR):
            raise OSError(number, os.strerror(number), path)


def syncfs(fd: int) -> None:
    """Write everything of the file system that `fd` is on to its disk (syncfs(2)). Errors: OSError."""
    if _libc.syncfs(fd):
        number = ctypes.get_errno()
        raise OSError(number, f"syncfs: {os.strerror(number)}")
