"""Subvolumes of btrfs by the kernel's ioctls (include/uapi/linux/btrfs.h, btrfs_tree.h): no btrfs program is needed.

Folders are descriptors, names are single ones in them. What makes or destroys is one transaction of the file system: it
has happened or it has not. The space of a destroyed subvolume comes back later, by the kernel's cleaner.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from wharfie.spi import nodes
from wharfie.spi.call import progress
from wharfie.spi.inroot import FOLDER

_MAGIC = 0x94
_WRITE, _BOTH = 1, 3


def _number(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | _MAGIC << 8 | number


_VOL_ARGS = struct.Struct("=q4088s")  # fd, name
_VOL_ARGS_V2 = struct.Struct("=qQQ32x4040s")  # fd, transid, flags, name
_INO_LOOKUP_ARGS = struct.Struct("=QQ4080s")  # tree, object, name
_SEARCH_KEY = struct.Struct("=7Q4L32x")  # tree; object, offset, transid from and to; type from and to, items, unused
_SEARCH_ARGS_SIZE = 4096  # the key, then the items found
_SEARCH_HEADER = struct.Struct("=QQQLL")  # transid, object, offset, type, length of the data that follows
_ROOT_REF = struct.Struct("=QQH")  # folder, sequence, length of the name that follows

_SNAP_DESTROY = _number(_WRITE, 15, _VOL_ARGS.size)
_TREE_SEARCH = _number(_BOTH, 17, _SEARCH_ARGS_SIZE)
_INO_LOOKUP = _number(_BOTH, 18, _INO_LOOKUP_ARGS.size)
_SNAP_CREATE_V2 = _number(_WRITE, 23, _VOL_ARGS_V2.size)
_SUBVOL_CREATE_V2 = _number(_WRITE, 24, _VOL_ARGS_V2.size)
_SUBVOL_SETFLAGS = _number(_WRITE, 26, 8)

_ROOT_TREE = 1
_ROOT_REF_KEY = 156
_TOP = 256
"""BTRFS_FIRST_FREE_OBJECTID: the inode number of each subvolume's own folder, and of no other folder."""
_LAST = (1 << 64) - 1

_FILE_HANDLE = struct.Struct("=IiQQI")  # length, type, object, subvolume, generation (0: any)
_FILEID_BTRFS_WITHOUT_PARENT = 0x4D

_libc = ctypes.CDLL(None, use_errno=True)
_libc.open_by_handle_at.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nested:
    """A subvolume within another: both by number, and its name in a folder (an inode) of the outer one."""

    number: int
    parent: int
    folder: int
    name: bytes


def on_btrfs(folder: int) -> bool:
    """Whether the folder lies on btrfs."""
    try:
        identity(folder)
    except OSError:
        return False
    return True


def identity(fd: int) -> int:
    """The number of the subvolume that `fd` is in. Errors: OSError (ENOTTY when it is not btrfs)."""
    arguments = bytearray(_INO_LOOKUP_ARGS.pack(0, _TOP, b""))
    fcntl.ioctl(fd, _INO_LOOKUP, arguments)
    found: int = _INO_LOOKUP_ARGS.unpack(arguments)[0]
    return found


def is_subvolume(facts: os.stat_result) -> bool:
    """Whether a folder on btrfs with these facts is a subvolume."""
    return facts.st_ino == _TOP


def create(folder: int, name: str) -> None:
    """An empty subvolume. Errors: OSError (EEXIST, ENOSPC, EDQUOT)."""
    fcntl.ioctl(folder, _SUBVOL_CREATE_V2, bytearray(_VOL_ARGS_V2.pack(0, 0, 0, os.fsencode(name))))


def snapshot(source: int, folder: int, name: str) -> None:
    """A writable copy of the subvolume `source`, of any size, that shares all its blocks. Subvolumes within it become
    empty folders. Errors: as `create`; EINVAL (`source` is no subvolume)."""
    fcntl.ioctl(folder, _SNAP_CREATE_V2, bytearray(_VOL_ARGS_V2.pack(source, 0, 0, os.fsencode(name))))


def nested(fd: int) -> list[Nested]:
    """The subvolumes that somebody made within the one that `fd` is in, each after all that are within it."""
    found: list[Nested] = []
    todo = [identity(fd)]
    while todo:
        inner = _children(fd, todo.pop())
        found += inner
        todo += [child.number for child in inner]
    return found[::-1]


def destroy(folder: int, name: str) -> None:
    """Remove a subvolume, with all that containers made within it, or a plain folder. Succeeds when it is not there.

    A container may make subvolumes in its own, and make them read-only: it needs no privilege for that. Errors: OSError.
    """
    try:
        found = os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        os.unlink(name, dir_fd=folder)
        return
    try:
        if not is_subvolume(os.fstat(found)):
            nodes.remove(folder, name.encode())
            return
        _destroy_nested(found)
    finally:
        os.close(found)
    fcntl.ioctl(folder, _SNAP_DESTROY, bytearray(_VOL_ARGS.pack(0, os.fsencode(name))))


def _destroy_nested(fd: int) -> None:
    for child in nested(fd):
        progress()
        with _opened(fd, child.parent, _TOP) as parent:  # nothing can go out of a read-only one
            fcntl.ioctl(parent, _SUBVOL_SETFLAGS, struct.pack("=Q", 0))
        with _opened(fd, child.parent, child.folder) as folder:
            fcntl.ioctl(folder, _SNAP_DESTROY, bytearray(_VOL_ARGS.pack(0, child.name)))


def _children(fd: int, subvolume: int) -> list[Nested]:
    """By the tree of roots, not by walking: a path may be longer than any call takes."""
    found: list[Nested] = []
    while True:
        start = found[-1].number + 1 if found else 0
        key = _SEARCH_KEY.pack(
            *(_ROOT_TREE, subvolume, subvolume, start, _LAST, 0, _LAST, _ROOT_REF_KEY, _ROOT_REF_KEY, 4096, 0)
        )
        arguments = bytearray(key.ljust(_SEARCH_ARGS_SIZE, b"\0"))
        fcntl.ioctl(fd, _TREE_SEARCH, arguments)
        items = _SEARCH_KEY.unpack_from(arguments)[9]
        if not items:
            return found
        at = _SEARCH_KEY.size
        for _ in range(items):
            _, _, number, _, length = _SEARCH_HEADER.unpack_from(arguments, at)
            at += _SEARCH_HEADER.size
            folder, _, _ = _ROOT_REF.unpack_from(arguments, at)
            name = bytes(arguments[at + _ROOT_REF.size : at + length])
            found.append(Nested(number=number, parent=subvolume, folder=folder, name=name))
            at += length


@contextmanager
def _opened(fd: int, subvolume: int, inode: int) -> Iterator[int]:
    """A folder by its numbers (open_by_handle_at(2)), on the file system that `fd` is on. Errors: OSError."""
    handle = _FILE_HANDLE.pack(_FILE_HANDLE.size - 8, _FILEID_BTRFS_WITHOUT_PARENT, inode, subvolume, 0)
    found = _libc.open_by_handle_at(fd, handle, FOLDER)
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"open the folder {inode} of subvolume {subvolume}: {os.strerror(number)}")
    try:
        yield found
    finally:
        os.close(found)
