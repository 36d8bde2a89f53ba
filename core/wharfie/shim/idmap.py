"""Id-mapped copies of mounts: their files are seen, and made, with other owners (mount_setattr(2), MOUNT_ATTR_IDMAP).

The kernel takes the mapping from a user namespace. One is made for it: a process that waits in a new user namespace until
that has been opened. Imported by the few processes that need it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from pathlib import Path
from typing import Final, NoReturn

from wharfie.shim.system import PR_SET_PDEATHSIG, prctl, unshare
from wharfie.spi.errors import InvalidArgument

CLONE_NEWUSER: Final = 0x10000000
_AT_EMPTY_PATH: Final = 0x1000
_AT_FDCWD: Final = -100
_AT_RECURSIVE: Final = 0x8000
_MOUNT_ATTR_IDMAP: Final = 0x00100000
_MOVE_MOUNT_F_EMPTY_PATH: Final = 0x04
_NR_OPEN_TREE: Final = 428  # the same on every architecture: calls from 424 on are numbered alike
_NR_MOVE_MOUNT: Final = 429
_NR_MOUNT_SETATTR: Final = 442
_OPEN_TREE_CLONE: Final = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def open_user_namespace(uid_map: str, gid_map: str) -> int:
    """A descriptor of a user namespace with these maps (user_namespaces(7)); it lives as long as what refers to it.

    Errors: InvalidArgument.
    """
    ready_read, ready_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _wait_inside(ready_write)
    os.close(ready_write)
    try:
        word = os.read(ready_read, 256).decode()
        if not word.isdecimal():
            raise InvalidArgument(f"cannot make a user namespace for an id-mapped mount: {word or 'killed'}")
        try:
            Path(f"/proc/{word}/uid_map").write_text(uid_map)
            Path(f"/proc/{word}/gid_map").write_text(gid_map)
        except OSError as error:
            raise InvalidArgument(f"the kernel refuses the id mappings of a mount: {_reason(error)}") from error
        return os.open(f"/proc/{word}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready_read)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _wait_inside(ready: int) -> NoReturn:
    """Says its pid as /proc has it, which shows the host's pid namespace, when it is there."""
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        unshare(CLONE_NEWUSER)
        os.write(ready, os.fsencode(Path("/proc/self").readlink()))
        signal.pause()
    except OSError as error:
        os.write(ready, _reason(error).encode())
    finally:
        os._exit(0)


def map_ids(tree: int, user_namespace: int, *, recursive: bool, what: str) -> None:
    """Map the ids of a detached mount. `what`: its description for messages.

    Errors: InvalidArgument (the file system cannot be mapped, or is already).
    """
    attr = _MountAttr(attr_set=_MOUNT_ATTR_IDMAP, userns_fd=user_namespace)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    size = ctypes.c_size_t(ctypes.sizeof(attr))
    try:
        _call(_NR_MOUNT_SETATTR, ctypes.c_int(tree), b"", ctypes.c_uint(flags), ctypes.byref(attr), size)
    except OSError as error:
        cause = _reason(error)
        if error.errno == errno.EINVAL:
            cause = "the file system, or one mounted below it, cannot be id-mapped by this kernel"
        raise InvalidArgument(f"error mounting {what}: {cause}") from error


def mount_mapped(source: str, target: str, user_namespace: int) -> None:
    """Mount a folder on another, with its ids mapped. Errors: InvalidArgument, OSError."""
    flags = ctypes.c_uint(_OPEN_TREE_CLONE | os.O_CLOEXEC)
    tree = _call(_NR_OPEN_TREE, ctypes.c_int(_AT_FDCWD), os.fsencode(source), flags)
    try:
        map_ids(tree, user_namespace, recursive=False, what=source)
        place = ctypes.c_int(_AT_FDCWD)
        move = ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH)
        _call(_NR_MOVE_MOUNT, ctypes.c_int(tree), b"", place, os.fsencode(target), move)
    finally:
        os.close(tree)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or 0).lower()
