"""Mounts of file systems in files."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from wharfie.spi import loop_devices
from wharfie.spi.errors import DataLoss, from_os_error

# From the Linux kernel's headers (mount.h, fs.h).
MS_NODEV = 0x4

_DAMAGED = (errno.EUCLEAN, errno.EINVAL, errno.EIO, errno.EBADMSG)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def mount(image: Path, target: Path) -> None:
    """Mount the ext4 file system in the file `image`. A failure leaves no device.

    Errors: DataLoss (it is damaged), OutOfSpace (no loop device is left), others by number.
    """
    with loop_devices.attached(image) as device:
        if _libc.mount(device.encode(), os.fsencode(target), b"ext4", MS_NODEV, b"errors=remount-ro") < 0:
            _raise_mount_error(image, ctypes.get_errno())


def _raise_mount_error(image: Path, number: int) -> None:
    if number in _DAMAGED:
        raise DataLoss(
            f"the file system in {image} is damaged: mount: {os.strerror(number)}; try to repair it with: e2fsck -f {image}"
        )
    raise from_os_error(OSError(number, f"mount: {os.strerror(number)}", str(image)))
