"""Docker's mount options, and what they mean to the kernel."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path

from wharfie.spi import loop_devices
from wharfie.spi.errors import DriverError, InvalidArgument, Unavailable, WharfieError, from_os_error
from wharfie.spi.mount_points import unmount
from wharfie_volume_local import mount_call, network

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
_SECRET = re.compile(r"((?:password2?|pass)=)[^,]*")
_SERVER_ERRORS = (
    *(errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EHOSTUNREACH, errno.EHOSTDOWN),
    *(errno.ENETUNREACH, errno.ENETDOWN, errno.EIO, errno.EAGAIN, errno.EPROTONOSUPPORT),
)


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

    Errors, in Docker's words: InvalidArgument (what the kernel says to the type, the device or an option), Unavailable (the
    server does not answer), Forbidden, OutOfSpace.
    """
    options = Options.parse(text)
    if type in network.TYPES:
        device, data = network.resolve(type, device, options.data)
        _check(network.mount(device, target, type, options.flags, data), device, target, type, options.flags, data)
    elif not options.flags & MS_BIND and Path(device).is_file():
        try:
            with loop_devices.attached(Path(device), read_only=bool(options.flags & MS_RDONLY)) as block_device:
                _mount(block_device, target, type, options.flags, options.data)
        except OSError as error:
            raise Unavailable(
                f"failed to mount local volume: a loop device for {device}: {error.strerror or error}"
            ) from error
    else:
        _mount(device, target, type, options.flags, options.data)
    try:
        if options.flags & MS_BIND and options.flags & ~(MS_BIND | MS_REC):
            # A bind mount takes the source's flags; its own need a second call.
            _mount(device, target, type, (options.flags & ~MS_REC) | MS_REMOUNT, options.data)
        if options.propagation:
            _mount("", target, "", options.propagation, "")
    except WharfieError:
        end(target, type)
        raise


def end(target: Path, type: str) -> None:
    """Undo `mount`, of this type. May be repeated. Errors: Unavailable (the server does not answer, and holds it)."""
    network.unmount(target) if type in network.TYPES else unmount(target)


def _mount(device: str, target: Path, type: str, flags: int, data: str) -> None:
    _check(mount_call.call(device, str(target), type, flags, data), device, target, type, flags, data)


def _check(number: int, device: str, target: Path, type: str, flags: int, data: str) -> None:
    """Raise what the kernel's error number means."""
    if number == 0:
        return
    words = [f"mount {device}:{target}" if device else f"mount {target}"]
    if flags:
        words.append(f"flags: {flags:#x}")
    if data:
        words.append("data: " + _SECRET.sub(r"\1********", data))
    what = f"failed to mount local volume: {', '.join(words)}: {os.strerror(number).lower()}"
    details = {"errno": errno.errorcode.get(number, str(number))}
    if number == errno.ENODEV:
        raise InvalidArgument(f"{what} (this kernel has no file system {type!r})", details=details)
    if type in network.TYPES and number in _SERVER_ERRORS:
        raise Unavailable(what, details=details)
    mapped = from_os_error(OSError(number, os.strerror(number)))
    # What the user named is not there or not right: no failure of the driver, which would count against it.
    kind = InvalidArgument if isinstance(mapped, DriverError) else mapped.__class__
    raise kind(what, details=details)
