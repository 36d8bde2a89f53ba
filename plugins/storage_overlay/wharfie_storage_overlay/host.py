"""What this host can do: a trial of everything that the driver needs, in a folder that goes again, without a mount.

The trial makes an overlay by fsopen(2), fsconfig(2) and closes it before it is attached anywhere: nothing to unmount, and
no mount namespace to enter.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
import tempfile
from pathlib import Path

from wharfie.spi.driver import Problem
from wharfie.spi.errors import Unsupported
from wharfie.spi.inroot import FOLDER, open_in_root
from wharfie.spi.tar import OPAQUE_XATTR

MOUNT_OPTIONS = ("index=off", "redirect_dir=off", "metacopy=off")
"""What every overlay of ours is mounted with: without these features an upper folder alone says what changed, and a layer
that was an upper folder once can lie anywhere in other stacks."""

_NR_GETDENTS64 = {"x86_64": 217, "aarch64": 61, "riscv64": 61, "s390x": 220, "ppc64le": 202}
_NR_FSOPEN, _NR_FSCONFIG = 430, 431  # the same on every architecture
_FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 1, 6
_FSOPEN_CLOEXEC = 1
_DIRENT = struct.Struct("=QqHB")  # struct linux_dirent64 up to the name
_FILE_SYSTEMS = {
    0x9123683E: "btrfs",
    0x794C7630: "overlayfs",
    0x65735546: "fuse",
    0xF2F52010: "f2fs",
    0xE0F5E1E2: "erofs",
    0x6969: "nfs",
    0x01021994: "tmpfs",
    0x2FC12FC1: "zfs",
    0x58465342: "xfs",
    0xEF53: "extfs",
    0x01021997: "9p",
    0xCA451A4E: "bcachefs",
}
"""Magic numbers (linux/magic.h) and the names that `docker info` uses."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.statfs.argtypes = (ctypes.c_char_p, ctypes.c_void_p)


def backing_file_system(path: Path) -> str:
    """The file system that `path` is on, as `docker info` names it. Errors: OSError."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.statfs(os.fsencode(path), buffer):
        raise _failed("statfs")
    (magic,) = struct.unpack_from("@l", buffer.raw)
    return _FILE_SYSTEMS.get(magic & 0xFFFFFFFF, f"<unknown> (0x{magic & 0xFFFFFFFF:x})")


def problems(state: Path) -> list[Problem]:
    """What stands in the way of overlays below `state`, which exists."""
    bad = sorted(set(str(state)) & set(":,\\"))
    if bad:
        return [Problem(what=f"overlay cannot name {state}: {' '.join(bad)} in the path", fix="choose another data-root")]
    try:
        with tempfile.TemporaryDirectory(prefix=".trial-", dir=state) as folder:
            return _try(Path(folder), state)
    except OSError as error:
        return [Problem(what=f"{state} cannot be written: {error}", fix="run wharfied as root on a writable data-root")]


def _try(folder: Path, state: Path) -> list[Problem]:
    backing = backing_file_system(state)
    other = 'move data-root to ext4, xfs or btrfs, or set "storage-driver" to another one'
    for name in ("lower", "upper", "work"):
        (folder / name).mkdir()
    try:
        os.setxattr(folder / "upper", OPAQUE_XATTR, b"y")
        os.removexattr(folder / "upper", OPAQUE_XATTR)
    except OSError as error:
        if error.errno == errno.EPERM:
            return [Problem(what="not allowed to set trusted attributes", fix="run wharfied as root")]
        return [Problem(what=f"{state} ({backing}) keeps no trusted attributes: {error.strerror}", fix=other)]
    if not _supports_d_type(folder):
        return [Problem(what=f"{state} ({backing}) does not tell types of files (d_type)", fix="mkfs.xfs -n ftype=1")]
    try:
        _make_overlay(folder)
    except Unsupported as error:
        return [Problem(what=error.message, fix="boot a newer kernel")]
    except OSError as error:
        if error.errno == errno.ENODEV:
            return [Problem(what="the kernel has no overlay file system", fix="modprobe overlay")]
        if error.errno == errno.EPERM:
            return [Problem(what="not allowed to make file systems", fix="run wharfied as root, with CAP_SYS_ADMIN")]
        return [Problem(what=f"overlay does not work on {state} ({backing}): {error.strerror}", fix=other)]
    return []


def _supports_d_type(folder: Path) -> bool:
    number = _NR_GETDENTS64.get(os.uname().machine)
    if number is None:
        return True  # of the file systems that overlay can use, only an old xfs lacks it
    listing = os.open(folder, FOLDER)
    try:
        buffer = ctypes.create_string_buffer(4096)
        got = _libc.syscall(ctypes.c_long(number), listing, buffer, ctypes.c_size_t(len(buffer)))
        at, types = 0, set()
        while at < got:
            _, _, length, kind = _DIRENT.unpack_from(buffer, at)
            types.add(kind)
            at += length
        return 0 not in types  # DT_UNKNOWN
    finally:
        os.close(listing)


def _make_overlay(folder: Path) -> None:
    with contextlib.ExitStack() as stack:

        def keep(fd: int) -> int:
            stack.callback(os.close, fd)
            return fd

        context = _libc.syscall(ctypes.c_long(_NR_FSOPEN), ctypes.c_char_p(b"overlay"), ctypes.c_uint(_FSOPEN_CLOEXEC))
        if context < 0:
            raise _failed("fsopen")
        keep(context)
        root = keep(os.open(folder, FOLDER))
        options = [tuple(option.split("=")) for option in MOUNT_OPTIONS]
        for name in ("lower", "upper", "work"):
            fd = keep(open_in_root(root, name.encode(), FOLDER))
            options.append((name + "dir", f"/proc/self/fd/{fd}"))  # a value has at most 256 bytes
        for key, value in options:
            _fsconfig(context, _FSCONFIG_SET_STRING, key.encode(), value.encode())
        _fsconfig(context, _FSCONFIG_CMD_CREATE, None, None)


def _fsconfig(context: int, command: int, key: bytes | None, value: bytes | None) -> None:
    arguments = (
        ctypes.c_long(_NR_FSCONFIG),
        context,
        ctypes.c_uint(command),
        ctypes.c_char_p(key),
        ctypes.c_char_p(value),
        0,
    )
    if _libc.syscall(*arguments) < 0:
        raise _failed("fsconfig")


def _failed(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")
