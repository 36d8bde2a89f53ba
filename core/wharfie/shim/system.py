"""System calls that the shim needs and Python's `os` lacks: one function a call, named as the kernel names it.

Constants are from the kernel's own headers (include/uapi/linux: mount.h, sched.h, prctl.h, openat2.h).
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from typing import Any

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000

MNT_DETACH = 2

MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000

MOUNT_FLAGS = {
    "ro": 0x1,
    "nosuid": 0x2,
    "nodev": 0x4,
    "noexec": 0x8,
    "sync": 0x10,
    "remount": 0x20,
    "dirsync": 0x80,
    "nosymfollow": 0x100,
    "noatime": 0x400,
    "nodiratime": 0x800,
    "bind": MS_BIND,
    "rbind": MS_BIND | MS_REC,
    "silent": 0x8000,
    "relatime": 0x200000,
    "strictatime": 0x1000000,
    "lazytime": 0x2000000,
}
"""Options of mount(8) that are flags of mount(2); `defaults`, `rw` and the like set nothing."""
NEUTRAL_OPTIONS = frozenset({"defaults", "rw", "suid", "dev", "exec", "async", "atime", "diratime"})

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_IN_ROOT = 0x10

_NR_OPENAT2 = 437  # the same on every architecture: calls from 424 on are numbered alike

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.unshare.argtypes = (ctypes.c_int,)
_libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)
_libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_libc.inotify_init1.argtypes = (ctypes.c_int,)
_libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
_libc.syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def _failed(call: str, subject: str = "") -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}", subject or None)


def mount(source: str, target: str, type: str, flags: int, data: str = "") -> None:
    if _libc.mount(os.fsencode(source), os.fsencode(target), type.encode(), flags, os.fsencode(data) or None):
        raise _failed("mount", target)


def umount2(target: str, flags: int) -> None:
    if _libc.umount2(os.fsencode(target), flags):
        raise _failed("umount2", target)


def unshare(flags: int) -> None:
    if _libc.unshare(flags):
        raise _failed("unshare")


def setns(fd: int, kind: int) -> None:
    if _libc.setns(fd, kind):
        raise _failed("setns")


def inotify(path: str, mask: int) -> int:
    """A non-blocking inotify descriptor that watches one file."""
    fd = int(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
    if fd < 0:
        raise _failed("inotify_init1")
    if _libc.inotify_add_watch(fd, os.fsencode(path), mask) < 0:
        error = _failed("inotify_add_watch", path)
        os.close(fd)
        raise error
    return fd


def prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, argument, 0, 0, 0):
        raise _failed("prctl")


set_handler: Callable[[int, int | Callable[[int, Any], None]], object] = getattr(
    signal.signal, "__wrapped__", signal.signal
)
"""signal.signal, without its search for the enumeration's members, which would cost each shim its memory."""


def set_name(name: str) -> None:
    """The process's name in `ps`, at most 15 bytes."""
    comm = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(comm, name.encode()[:15])
    finally:
        os.close(comm)


def openat2(folder: int, path: str, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """Open `path` below `folder`; the descriptor is closed on execve."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    fd: int = _libc.syscall(
        ctypes.c_long(_NR_OPENAT2),
        ctypes.c_long(folder),
        ctypes.c_char_p(os.fsencode(path)),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    if fd < 0:
        raise _failed("openat2", path)
    return fd
