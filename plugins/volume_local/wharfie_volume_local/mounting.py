"""mount(2) and Docker's mount options."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from wharfie.spi import loop_devices
from wharfie.spi.errors import InvalidArgument, Unavailable, WharfieError, from_os_error
from wharfie.spi.mount_points import unmount

# From the Linux kernel's headers (mount.h, fs.h).
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_SYNCHRONOUS = 0x10
MS_REMOUNT = 0x20
MS_MANDLOCK = 0x40
MS_DIRSYNC = 0x80
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_REC = 0x4000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000
MS_STRICTATIME = 0x1000000

_SET = {
    "ro": MS_RDONLY,
    "nosuid": MS_NOSUID,
    "nodev": MS_NODEV,
    "noexec": MS_NOEXEC,
    "sync": MS_SYNCHRONOUS,
    "mand": MS_MANDLOCK,
    "dirsync": MS_DIRSYNC,
    "noatime": MS_NOATIME,
    "nodiratime": MS_NODIRATIME,
    "bind": MS_BIND,
    "rbind": MS_BIND | MS_REC,
    "relatime": MS_RELATIME,
    "strictatime": MS_STRICTATIME,
}
_CLEAR = {
    "rw": MS_RDONLY,
    "suid": MS_NOSUID,
    "dev": MS_NODEV,
    "exec": MS_NOEXEC,
    "async": MS_SYNCHRONOUS,
    "nomand": MS_MANDLOCK,
    "atime": MS_NOATIME,
    "diratime": MS_NODIRATIME,
    "norelatime": MS_RELATIME,
    "nostrictatime": MS_STRICTATIME,
    "defaults": 0,
    "loop": 0,  # of mount(8), not of the kernel: a file gets its loop device anyway
}
_PROPAGATION = {
    "private": MS_PRIVATE,
    "rprivate": MS_PRIVATE | MS_REC,
    "shared": MS_SHARED,
    "rshared": MS_SHARED | MS_REC,
    "slave": MS_SLAVE,
    "rslave": MS_SLAVE | MS_REC,
    "unbindable": MS_UNBINDABLE,
    "runbindable": MS_UNBINDABLE | MS_REC,
}
_NETWORK = ("nfs", "nfs4", "cifs")
_ADDRESS = re.compile(r"(?<![a-z])addr=([^,]*)")
_SECRET = re.compile(r"(password|pass)=[^,]*")
_PEER_ERRORS = (
    errno.ETIMEDOUT,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTUNREACH,
    errno.EHOSTDOWN,
    errno.ENETUNREACH,
    errno.EIO,
)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """An option string (`o=…`), sorted into what mount(2) takes: flags, propagation (a call of its own) and the rest."""

    flags: int
    propagation: int
    data: str

    @classmethod
    def parse(cls, text: str) -> Options:
        """As mount(8) reads it; what is not a flag is the file system's own."""
        flags = propagation = 0
        data: list[str] = []
        for option in filter(None, (part.strip() for part in text.split(","))):
            if option in _SET:
                flags |= _SET[option]
            elif option in _CLEAR:
                flags &= ~_CLEAR[option]
            elif option in _PROPAGATION:
                propagation = _PROPAGATION[option]
            else:
                data.append(option)
        return cls(flags=flags, propagation=propagation, data=",".join(data))


def mount(device: str, target: Path, type: str, text: str) -> None:
    """Mount as `mount -t type -o text device target` would, a file that holds a file system by a loop device. A failure
    leaves nothing mounted.

    Errors: InvalidArgument (the kernel does not know the type or an option), Unavailable (the server does not answer),
    others by number.
    """
    options = Options.parse(text)
    data = _resolve(options.data) if type in _NETWORK else options.data
    if not options.flags & MS_BIND and type not in _NETWORK and Path(device).is_file():
        try:
            with loop_devices.attached(Path(device), read_only=bool(options.flags & MS_RDONLY)) as block_device:
                _mount(block_device, target, type, options.flags, data, text)
        except OSError as error:
            raise Unavailable(
                f"failed to mount local volume: a loop device for {device}: {error.strerror or error}"
            ) from error
    else:
        _mount(device, target, type, options.flags, data, text)
    try:
        if options.flags & MS_BIND and options.flags & ~(MS_BIND | MS_REC):
            # A bind mount takes the source's flags; its own need a second call.
            _mount(device, target, type, (options.flags & ~MS_REC) | MS_REMOUNT, data, text)
        if options.propagation:
            _mount("", target, "", options.propagation, "", text)
    except WharfieError:
        unmount(target)
        raise


def _mount(device: str, target: Path, type: str, flags: int, data: str, text: str) -> None:
    result = _libc.mount(device.encode(), os.fsencode(target), type.encode(), flags, data.encode())
    if result == 0:
        return
    number = ctypes.get_errno()
    shown = _SECRET.sub(r"\1=********", text)
    reason = os.strerror(number).lower()
    what = f"failed to mount local volume: mount {device}:{target}, type {type}, options {shown!r}: {reason}"
    if number == errno.ENODEV:
        raise InvalidArgument(f"{what}; this kernel has no file system {type!r} (see /proc/filesystems)")
    if number == errno.EINVAL:
        raise InvalidArgument(f"{what}; the file system refused an option, the kernel's log may say which")
    if type in _NETWORK and number in _PEER_ERRORS:
        raise Unavailable(f"{what}; is the server up and does it export the volume to this host?")
    mapped = from_os_error(OSError(number, os.strerror(number)))
    raise mapped.__class__(what, details=mapped.details)


def _resolve(data: str) -> str:
    """The kernel takes only an address for `addr=`; users write names."""
    match = _ADDRESS.search(data)
    if match is None:
        return data
    try:
        address = socket.getaddrinfo(match[1], None, type=socket.SOCK_STREAM)[0][4][0]
    except OSError as error:
        raise Unavailable(f"error resolving passed in network volume address {match[1]!r}: {error}") from None
    return data.replace(match[0], f"addr={address}", 1)
