"""System calls that Python's `os` lacks: one function each, under the kernel's name.

Every failure is an OSError made by `oserror`, with the call's name and what it was called on. Argument types are set
once, here; nothing in this module keeps state.
"""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final, NoReturn

from wharfie_runtime_native.constants import AT_EMPTY_PATH, CLONE_INTO_CGROUP, LINUX_CAPABILITY_VERSION_3

# Numbers from asm-generic/unistd.h; calls since Linux 5.0 have one number everywhere, the older ones are listed twice.
_NUMBERS: Final = {
    "x86_64": {"capset": 126, "keyctl": 250, "pivot_root": 155, "seccomp": 317, "bpf": 321},
    "aarch64": {"capset": 91, "keyctl": 219, "pivot_root": 414, "seccomp": 277, "bpf": 280},
}
MACHINES: Final = tuple(_NUMBERS)
# An unknown machine gets -1, which the kernel answers with ENOSYS; the driver's `check` says so before.
_HERE: Final = _NUMBERS.get(os.uname().machine, dict.fromkeys(_NUMBERS["x86_64"], -1))
NR_BPF: Final = _HERE["bpf"]
NR_CAPSET: Final = _HERE["capset"]
NR_CLONE3: Final = 435
NR_CLOSE_RANGE: Final = 436
NR_KEYCTL: Final = _HERE["keyctl"]
NR_MOUNT_SETATTR: Final = 442
NR_MOVE_MOUNT: Final = 429
NR_OPENAT2: Final = 437
NR_OPEN_TREE: Final = 428
NR_PIDFD_GETFD: Final = 438
NR_PIVOT_ROOT: Final = _HERE["pivot_root"]
NR_SECCOMP: Final = _HERE["seccomp"]


class OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class CloneArgs(ctypes.Structure):
    # As of Linux 5.7, which brought the last field; stack and the rest stay 0, as for fork(2).
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("pidfd", ctypes.c_uint64),
        ("child_tid", ctypes.c_uint64),
        ("parent_tid", ctypes.c_uint64),
        ("exit_signal", ctypes.c_uint64),
        ("stack", ctypes.c_uint64),
        ("stack_size", ctypes.c_uint64),
        ("tls", ctypes.c_uint64),
        ("set_tid", ctypes.c_uint64),
        ("set_tid_size", ctypes.c_uint64),
        ("cgroup", ctypes.c_uint64),
    )


class MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


class CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class CapData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


class SockFilter(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_uint16), ("filter", ctypes.c_char_p))


class Statfs(ctypes.Structure):
    # Only f_type is read; the rest is room for what the kernel writes (asm-generic/statfs.h: 120 bytes on 64 bit).
    _fields_ = (("f_type", ctypes.c_long), ("rest", ctypes.c_long * 15))


libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
# The same without letting go of the interpreter's lock, which a forked child could not take back.
_locked = ctypes.PyDLL(None, use_errno=True)
_locked.syscall.restype = ctypes.c_long
libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
libc.unshare.argtypes = (ctypes.c_int,)
libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)
libc.setdomainname.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
libc.fstatfs.argtypes = (ctypes.c_int, ctypes.POINTER(Statfs))


def oserror(syscall: str, subject: str = "") -> NoReturn:
    """Raise the OSError for the errno that the last call through ctypes left."""
    number = ctypes.get_errno()
    what = f"{syscall} {subject}".strip()
    raise OSError(number, f"{what}: {os.strerror(number).lower()}")


def _call(number: int, *arguments: object) -> int:
    return int(libc.syscall(ctypes.c_long(number), *arguments))


def clone3_into_cgroup(group: int) -> int:
    """fork(2) whose child is in the control group that `group` is opened on, version 2, from its first instruction.

    To be called where there is one thread, as everywhere in this package: what libc does around fork for the sake of
    others is left out, what Python does is not.
    """
    arguments = CloneArgs(flags=CLONE_INTO_CGROUP, exit_signal=signal.SIGCHLD, cgroup=group)
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = int(_locked.syscall(ctypes.c_long(NR_CLONE3), ctypes.byref(arguments), ctypes.c_size_t(ctypes.sizeof(arguments))))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        oserror("clone3")
    return pid


def unshare(flags: int) -> None:
    if libc.unshare(flags) < 0:
        oserror("unshare", f"{flags:#x}")


def setns(fd: int, flags: int) -> None:
    if libc.setns(fd, flags) < 0:
        oserror("setns", f"{flags:#x}")


def mount(source: str, target: str, type: str, flags: int, data: str) -> None:
    options = data.encode() if data else None
    if libc.mount(source.encode() or None, target.encode(), type.encode() or None, flags, options) < 0:
        oserror("mount", f"{type or 'flags'} {source}".strip())


def umount2(target: str, flags: int) -> None:
    if libc.umount2(target.encode(), flags) < 0:
        oserror("umount2", target)


def pivot_root(new_root: str, put_old: str) -> None:
    if _call(NR_PIVOT_ROOT, new_root.encode(), put_old.encode()) < 0:
        oserror("pivot_root", new_root)


def openat2(fd: int, path: str, flags: int, resolve: int) -> int:
    """A descriptor, always close-on-exec."""
    how = OpenHow(flags=flags | os.O_CLOEXEC, mode=0, resolve=resolve)
    opened = _call(NR_OPENAT2, fd, path.encode(), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how)))
    if opened < 0:
        oserror("openat2", path)
    return opened


def open_tree(fd: int, path: str, flags: int) -> int:
    tree = _call(NR_OPEN_TREE, fd, path.encode(), ctypes.c_uint(flags))
    if tree < 0:
        oserror("open_tree", path)
    return tree


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """Another process's descriptor as one of ours; close-on-exec."""
    copy = _call(NR_PIDFD_GETFD, pidfd, ctypes.c_int(fd), ctypes.c_uint(0))
    if copy < 0:
        oserror("pidfd_getfd", str(fd))
    return copy


def move_mount(from_fd: int, from_path: str, to_fd: int, to_path: str, flags: int) -> None:
    if _call(NR_MOVE_MOUNT, from_fd, from_path.encode(), to_fd, to_path.encode(), ctypes.c_uint(flags)) < 0:
        oserror("move_mount", to_path)


def mount_setattr(fd: int, path: str, flags: int, *, attr_set: int = 0, attr_clr: int = 0, propagation: int = 0) -> None:
    attr = MountAttr(attr_set=attr_set, attr_clr=attr_clr, propagation=propagation)
    size = ctypes.c_size_t(ctypes.sizeof(attr))
    if not path:
        flags |= AT_EMPTY_PATH
    if _call(NR_MOUNT_SETATTR, fd, path.encode(), ctypes.c_uint(flags), ctypes.byref(attr), size) < 0:
        oserror("mount_setattr", path)


def fstatfs_type(fd: int) -> int:
    """The file system's magic number (linux/magic.h) of what `fd` is opened on; O_PATH is enough."""
    buffer = Statfs()
    if libc.fstatfs(fd, ctypes.byref(buffer)) < 0:
        oserror("fstatfs")
    return int(buffer.f_type)


def close_range(first: int, last: int, flags: int) -> None:
    if _call(NR_CLOSE_RANGE, ctypes.c_uint(first), ctypes.c_uint(last), ctypes.c_uint(flags)) < 0:
        oserror("close_range")


def setdomainname(name: str) -> None:
    encoded = name.encode()
    if libc.setdomainname(encoded, len(encoded)) < 0:
        oserror("setdomainname", name)


def prctl(option: int, arg2: int = 0, arg3: int = 0) -> int:
    result = int(libc.prctl(option, arg2, arg3, 0, 0))
    if result < 0:
        oserror("prctl", str(option))
    return result


def prctl_name(option: int, name: str) -> None:
    """prctl with a string, for PR_SET_NAME."""
    buffer = ctypes.create_string_buffer(name.encode())
    prctl(option, ctypes.addressof(buffer))


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set this thread's three sets, each a mask of bits 1 << CAP_…."""
    header = CapHeader(version=LINUX_CAPABILITY_VERSION_3, pid=0)
    data = (CapData * 2)()
    for index, shift in enumerate((0, 32)):
        data[index].effective = effective >> shift & 0xFFFFFFFF
        data[index].permitted = permitted >> shift & 0xFFFFFFFF
        data[index].inheritable = inheritable >> shift & 0xFFFFFFFF
    if _call(NR_CAPSET, ctypes.byref(header), ctypes.byref(data)) < 0:
        oserror("capset")


def keyctl_join_session_keyring(operation: int, name: str) -> None:
    if _call(NR_KEYCTL, ctypes.c_int(operation), name.encode()) < 0:
        oserror("keyctl", name)


def seccomp(operation: int, flags: int, program: bytes) -> None:
    """Install a filter; `program` is an array of struct sock_filter."""
    prog = SockFprog(len=len(program) // ctypes.sizeof(SockFilter), filter=program)
    if _call(NR_SECCOMP, ctypes.c_uint(operation), ctypes.c_uint(flags), ctypes.byref(prog)) < 0:
        oserror("seccomp")


def bpf(command: int, attributes: bytes | bytearray) -> int:
    """bpf(2); `attributes` is the union bpf_attr as packed bytes. What the kernel answers is written into a bytearray."""
    buffer = ctypes.create_string_buffer(bytes(attributes), len(attributes))
    result = _call(NR_BPF, ctypes.c_int(command), buffer, ctypes.c_uint(len(attributes)))
    if result < 0:
        oserror("bpf", str(command))
    if isinstance(attributes, bytearray):
        attributes[:] = buffer.raw
    return result
