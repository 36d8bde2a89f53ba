"""A loop device (loop(4)) for a file that holds a file system. It clears itself with its last user, which is the mount."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from wharfie.spi.errors import OutOfSpace, Unavailable

# From the Linux kernel's headers (loop.h).
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CTL_GET_FREE = 0x4C82
_LO_FLAGS_READ_ONLY = 1
_LO_FLAGS_AUTOCLEAR = 4
_MAJOR = 7
_CONTROL = "/dev/loop-control"
_CONFIG = struct.Struct("=II 52x I 240x")
"""struct loop_config: the file's descriptor, the block size, and of struct loop_info64 only its flags."""
_TRIES = 64


@contextlib.contextmanager
def attached(file: Path, *, read_only: bool) -> Iterator[str]:
    """The path of a block device with the file's content, there as long as the context or a mount of it.

    Errors: OutOfSpace (no loop device is left), Unavailable (the file or loop devices cannot be opened).
    """
    try:
        number, device = _attach(file, read_only)
    except OSError as error:
        raise Unavailable(f"failed to mount local volume: a loop device for {file}: {error.strerror or error}") from error
    try:
        yield f"/dev/loop{number}"
    finally:
        os.close(device)


def _attach(file: Path, read_only: bool) -> tuple[int, int]:
    mode = os.O_RDONLY if read_only else os.O_RDWR
    flags = _LO_FLAGS_AUTOCLEAR | (_LO_FLAGS_READ_ONLY if read_only else 0)
    backing = os.open(file, mode | os.O_CLOEXEC)
    try:
        config = _CONFIG.pack(backing, 0, flags)
        for _ in range(_TRIES):
            number = _free()
            device = _open(number, mode)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # else somebody was faster
                    raise
            else:
                return number, device
    finally:
        os.close(backing)
    raise OutOfSpace(f"no loop device is free for {file}: others take them as fast as they are found")


def _free() -> int:
    control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OutOfSpace("no loop device is left; raise the kernel's limit with the parameter max_loop") from error
        raise
    finally:
        os.close(control)


def _open(number: int, mode: int) -> int:
    path = f"/dev/loop{number}"
    try:
        return os.open(path, mode | os.O_CLOEXEC)
    except FileNotFoundError:  # a /dev that the kernel does not fill
        os.mknod(path, stat.S_IFBLK | 0o660, os.makedev(_MAJOR, number))
        return os.open(path, mode | os.O_CLOEXEC)
