"""Loop devices (loop(4)) and mounts of what is on them. No device is left behind: it clears itself with its last user."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import stat
import struct
from pathlib import Path

from wharfie.spi.errors import DataLoss, OutOfSpace, from_os_error

# From the Linux kernel's headers (loop.h, mount.h, fs.h).
LOOP_CONFIGURE = 0x4C0A
LOOP_CTL_GET_FREE = 0x4C82
LO_FLAGS_AUTOCLEAR = 4
LOOP_MAJOR = 7
MS_NODEV = 0x4
MNT_DETACH = 0x2

_CONTROL = "/dev/loop-control"
_CONFIG = struct.Struct("=II 5Q 4I 64s 64s 32s 2Q 8Q")
"""struct loop_config: descriptor, block size, struct loop_info64, reserved."""
_TRIES = 64
_DAMAGED = (errno.EUCLEAN, errno.EINVAL, errno.EIO, errno.EBADMSG)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)


def mount(image: Path, target: Path) -> None:
    """Mount the ext4 file system in the file `image`. A failure leaves no device.

    Errors: DataLoss (it is damaged), OutOfSpace (no loop device is left), others by number.
    """
    device = _attach(image)
    try:
        path = os.readlink(f"/proc/self/fd/{device}")  # noqa: PTH115  # a descriptor's name, not a path of ours
        if _libc.mount(os.fsencode(path), os.fsencode(target), b"ext4", MS_NODEV, b"errors=remount-ro") < 0:
            _raise_mount_error(image, ctypes.get_errno())
    finally:
        os.close(device)  # the mount holds the device now; without one it clears itself


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


def _attach(image: Path) -> int:
    """A descriptor of a loop device with `image` in it."""
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        for _ in range(_TRIES):
            device = _open_free()
            zeros = (0,) * 5
            name = os.fsencode(image.parent.name)[:63]
            config = _CONFIG.pack(backing, 0, *zeros, 0, 0, 0, LO_FLAGS_AUTOCLEAR, name, b"", b"", 0, 0, *zeros, 0, 0, 0)
            try:
                fcntl.ioctl(device, LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # else somebody was faster
                    raise
            else:
                return device
    finally:
        os.close(backing)
    raise OutOfSpace(f"no loop device is free for {image}: others take them as fast as they are found")


def _open_free() -> int:
    control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        try:
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise OutOfSpace("no loop device is left; raise the kernel's limit with the parameter max_loop") from error
            raise
    finally:
        os.close(control)
    path = f"/dev/loop{number}"
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:  # a /dev that the kernel does not fill
        os.mknod(path, stat.S_IFBLK | 0o660, os.makedev(LOOP_MAJOR, number))
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)


def _raise_mount_error(image: Path, number: int) -> None:
    if number in _DAMAGED:
        raise DataLoss(
            f"the file system in {image} is damaged: mount: {os.strerror(number)}; try to repair it with: e2fsck -f {image}"
        )
    raise from_os_error(OSError(number, f"mount: {os.strerror(number)}", str(image)))


def _unescape(path: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes((int(match[1], 8),)), path)
