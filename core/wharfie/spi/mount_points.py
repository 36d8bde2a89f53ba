"""What is mounted where, and its end: for drivers that mount."""

from __future__ import annotations

import ctypes
import errno
import os
import re
from pathlib import Path
from typing import Final

from wharfie.spi.errors import from_os_error

_libc = ctypes.CDLL(None, use_errno=True)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_MNT_DETACH: Final = 0x2  # include/linux/fs.h


def is_mounted(target: Path) -> bool:
    """Whether something is mounted at `target` itself (proc_pid_mountinfo(5))."""
    wanted = os.fsencode(target)
    with open("/proc/self/mountinfo", "rb") as table:
        return any(_unescape(line.split(b" ", 5)[4]) == wanted for line in table)


def unmount(target: Path) -> None:
    """Take away everything that is mounted at `target`, also when it is in use on the host. May be repeated."""
    while is_mounted(target):
        if _libc.umount2(os.fsencode(target), _MNT_DETACH) < 0 and (number := ctypes.get_errno()) != errno.EINVAL:
            raise from_os_error(OSError(number, f"umount2: {os.strerror(number)}", str(target)))


def _unescape(path: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes((int(match[1], 8),)), path)
