"""A limit on the size of a folder: project quotas of ext4 and XFS.

A project is a number that a folder hands down to all that is made in it; the kernel counts what bears it. Structures and
commands: include/uapi/linux/fs.h (struct fsxattr), quota.h; quotactl_fd(2) takes any descriptor of the file system (Linux
5.14), so no block device has to be found.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from wharfie.spi.errors import Unavailable

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_NR_QUOTACTL_FD: Final = 443  # the same on every architecture
_PROJECT_QUOTA: Final = 2
_GET_QUOTA, _SET_QUOTA = (command << 8 | _PROJECT_QUOTA for command in (0x800007, 0x800008))
_BLOCK: Final = 1024
_LIMITS_OF_BLOCKS: Final = 1
_QUOTA: Final = struct.Struct("=8QI4x")
"""struct if_dqblk: hard and soft limit of blocks, bytes in use, three of inodes, two times, and which of them count."""

_GET_ATTRIBUTES, _SET_ATTRIBUTES = 0x801C581F, 0x401C5820  # FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR
_ATTRIBUTES: Final = struct.Struct("=5I8x")  # flags, extent size, extents, project, extent size of copies
_HAND_DOWN: Final = 0x200  # FS_XFLAG_PROJINHERIT


def offered(folder: Path) -> bool:
    """Whether the file system of `folder` keeps project quotas and enforces them."""
    with _opened(folder) as fd:
        try:
            _call(fd, _GET_QUOTA, 0, bytearray(_QUOTA.size))
        except OSError as error:
            return error.errno == errno.ENOENT  # XFS: nobody has used project 0 yet
        return True


def limit(folder: Path, project: int, size: int) -> None:
    """Let what is in `folder` (empty as yet) take at most `size` bytes. May be repeated. Errors: Unavailable."""
    block = bytearray(_QUOTA.pack(-(-size // _BLOCK), 0, 0, 0, 0, 0, 0, 0, _LIMITS_OF_BLOCKS))
    try:
        with _opened(folder) as fd:
            _call(fd, _SET_QUOTA, project, block)
            attributes = list(_ATTRIBUTES.unpack(fcntl.ioctl(fd, _GET_ATTRIBUTES, bytes(_ATTRIBUTES.size))))
            attributes[0] |= _HAND_DOWN
            attributes[3] = project
            fcntl.ioctl(fd, _SET_ATTRIBUTES, _ATTRIBUTES.pack(*attributes))
    except OSError as error:
        raise Unavailable(f"cannot limit {folder} to {size} bytes: {error.strerror or error}") from error


def lift(folder: Path, project: int) -> None:
    """Nobody is limited by `project` any more; `folder` is any of the file system. May be repeated."""
    with contextlib.suppress(OSError), _opened(folder) as fd:
        _call(fd, _SET_QUOTA, project, bytearray(_QUOTA.pack(0, 0, 0, 0, 0, 0, 0, 0, _LIMITS_OF_BLOCKS)))


def project_of(folder: Path) -> int:
    """The project that `folder` hands down; 0 for none."""
    try:
        with _opened(folder) as fd:
            project: int = _ATTRIBUTES.unpack(fcntl.ioctl(fd, _GET_ATTRIBUTES, bytes(_ATTRIBUTES.size)))[3]
            return project
    except OSError:
        return 0


def next_project(root: Path, folders: Iterable[Path]) -> int:
    """A project that none of `folders` has, above the one of `root`, which somebody may have given to the whole of it."""
    return max((project_of(folder) for folder in (root, *folders)), default=0) + 1


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _call(fd: int, command: int, project: int, data: bytearray) -> None:
    buffer = (ctypes.c_char * len(data)).from_buffer(data)
    if _libc.syscall(ctypes.c_long(_NR_QUOTACTL_FD), fd, ctypes.c_uint(command), project, buffer) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
