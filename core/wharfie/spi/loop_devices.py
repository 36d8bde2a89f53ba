"""Loop devices (loop(4)) for files that hold a file system: for volume drivers.

A file has one device at most, however many mount it. A mount that has gone from the host may live on for a moment in
the namespace of a container that is ending; a second device for the file would be a second file system on the same blocks,
which is how data is lost. No device is left behind: it clears itself with its last user, which is the mount.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from wharfie.spi.errors import OutOfSpace

# From the Linux kernel's headers (loop.h).
_CONFIGURE = 0x4C0A
_GET_STATUS = 0x4C05
_GET_FREE = 0x4C82
_READ_ONLY = 1
_AUTOCLEAR = 4
_MAJOR = 7
_CONTROL = "/dev/loop-control"
_CONFIG = struct.Struct("=II 52x I 240x")
"""struct loop_config: the file's descriptor, the block size, and of struct loop_info64 only its flags."""
_INFO = struct.Struct("=2Q 216x")
"""struct loop_info64: the device and inode of the file, and what nobody needs here."""
_TRIES = 64


@contextlib.contextmanager
def attached(file: Path, *, read_only: bool = False) -> Iterator[str]:
    """The path of a block device with the file's content, there as long as the context or a mount of it.

    Errors: OutOfSpace (no loop device is left); OSError (the file or loop devices cannot be opened).
    """
    mode = (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC
    backing = os.open(file, mode | os.O_NOFOLLOW)
    try:
        number, device = _find(backing, mode) or _configure(backing, mode, file)
    finally:
        os.close(backing)
    try:
        yield f"/dev/loop{number}"
    finally:
        os.close(device)


def _find(backing: int, mode: int) -> tuple[int, int] | None:
    """The device that has this very file already, opened so that it stays."""
    facts = os.fstat(backing)
    for folder in Path("/sys/block").glob("loop*/loop"):
        number = int(folder.parent.name.removeprefix("loop"))
        try:
            device = _open(number, mode)
        except OSError:  # cleared meanwhile, or somebody's for reading alone
            continue
        try:
            where, inode = _INFO.unpack(fcntl.ioctl(device, _GET_STATUS, bytes(_INFO.size)))
        except OSError:
            where = inode = -1
        if (where, inode) == (facts.st_dev, facts.st_ino):
            return number, device
        os.close(device)
    return None


def _configure(backing: int, mode: int, file: Path) -> tuple[int, int]:
    config = _CONFIG.pack(backing, 0, _AUTOCLEAR if mode & os.O_RDWR else _AUTOCLEAR | _READ_ONLY)
    for _ in range(_TRIES):
        number = _free()
        device = _open(number, mode)
        try:
            fcntl.ioctl(device, _CONFIGURE, config)
        except OSError as error:
            os.close(device)
            if error.errno != errno.EBUSY:  # else somebody was faster
                raise
        else:
            return number, device
    raise OutOfSpace(f"no loop device is free for {file}: others take them as fast as they are found")


def _free() -> int:
    control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(control, _GET_FREE)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OutOfSpace("no loop device is left; raise the kernel's limit with the parameter max_loop") from error
        raise
    finally:
        os.close(control)


def _open(number: int, mode: int) -> int:
    path = f"/dev/loop{number}"
    try:
        return os.open(path, mode)
    except FileNotFoundError:  # a /dev that the kernel does not fill
        os.mknod(path, stat.S_IFBLK | 0o660, os.makedev(_MAJOR, number))
        return os.open(path, mode)
