"""Mounts of file systems in files."""

from __future__ import annotations

import ctypes
import errno
import os
import re
from pathlib import Path

from wharfie.spi import loop_devices
from wharfie.spi.errors import DataLoss, from_os_error

# From the Linux kernel's headers (mount.h, fs.h).
MS_NODEV = 0x4
MNT_DETACH = 0x2

_DAMAGED = (errno.EUCLEAN, errno.EINVAL, errno.EIO, errno.EBADMSG)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)


def mount(image: Path, target: Path) -> None:
    """Mount the ext4 file system in the file `image`. A failure leaves no device.

    Errors: DataLoss (it is damaged), OutOfSpace (no loop device is left), others by number.
    """
    with loop_devices.attached(image) as device:
        if _libc.mount(device.encode(), os.fsencode(target), b"ext4", MS_NODEV, b"errors=remount-ro") < 0:
            _raise_mount_error(image, ctypes.get_errno())


def unmount(target: Path) -> None:
    """Take away everything that is mounted at `target`, also when it is in use on the host. May be repeated."""
    while is_mounted(target):
        if _libc.umount2(os.fsencode(target), MNT_DETACH) < 0 and (number := ctypes.get_errno()) != errno.EINVAL:
            raise from_os_error(OSError(number, f"umount2: {os.strerror(number)}", str(target)))


def is_mounted(target: Path) -> bool:
    """Whether something is mounted at `target` itself."""
    wanted = os.fsencode(target)
    with open("/proc/self/mountinfo", "rb") as table:
        return any(_unescape(line.split(b" ", 5)[4]) == wanted for line in table)


def _raise_mount_error(image: Path, number: int) -> None:
    if number in _DAMAGED:
        raise DataLoss(
            f"the file system in {image} is damaged: mount: {os.strerror(number)}; try to repair it with: e2fsck -f {image}"
        )
    raise from_os_error(OSError(number, f"mount: {os.strerror(number)}", str(image)))


def _unescape(path: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes((int(match[1], 8),)), path)
