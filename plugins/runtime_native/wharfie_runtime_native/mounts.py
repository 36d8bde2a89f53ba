"""Mounts as data: the entries of `mounts` in config.json, read into what the kernel is going to be told.

Nothing is mounted here; `rootfs` does that. Options are those of OCI runtime-spec, config.md "Linux mount options".
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from wharfie.spi.errors import InvalidArgument
from wharfie_runtime_native.constants import (
    MOUNT_ATTR__ATIME,
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_RELATIME,
    MOUNT_ATTR_STRICTATIME,
    MS_DIRSYNC,
    MS_I_VERSION,
    MS_LAZYTIME,
    MS_MANDLOCK,
    MS_NOATIME,
    MS_NODEV,
    MS_NODIRATIME,
    MS_NOEXEC,
    MS_NOSUID,
    MS_NOSYMFOLLOW,
    MS_POSIXACL,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_RELATIME,
    MS_REMOUNT,
    MS_SHARED,
    MS_SILENT,
    MS_SLAVE,
    MS_STRICTATIME,
    MS_SYNCHRONOUS,
    MS_UNBINDABLE,
)
from wharfie_runtime_native.namespaces import id_map


class Flag(NamedTuple):
    """One option of a mount point: as bits for mount(2), and as bits for mount_setattr(2), set or cleared."""

    ms: int
    attr: int
    clear: bool = False
    mask: int = 0  # attribute bits that have to be cleared before `attr` is set


_FLAGS: Final = {
    "ro": Flag(MS_RDONLY, MOUNT_ATTR_RDONLY),
    "rw": Flag(MS_RDONLY, MOUNT_ATTR_RDONLY, clear=True),
    "nosuid": Flag(MS_NOSUID, MOUNT_ATTR_NOSUID),
    "suid": Flag(MS_NOSUID, MOUNT_ATTR_NOSUID, clear=True),
    "nodev": Flag(MS_NODEV, MOUNT_ATTR_NODEV),
    "dev": Flag(MS_NODEV, MOUNT_ATTR_NODEV, clear=True),
    "noexec": Flag(MS_NOEXEC, MOUNT_ATTR_NOEXEC),
    "exec": Flag(MS_NOEXEC, MOUNT_ATTR_NOEXEC, clear=True),
    "nodiratime": Flag(MS_NODIRATIME, MOUNT_ATTR_NODIRATIME),
    "diratime": Flag(MS_NODIRATIME, MOUNT_ATTR_NODIRATIME, clear=True),
    "nosymfollow": Flag(MS_NOSYMFOLLOW, MOUNT_ATTR_NOSYMFOLLOW),
    "symfollow": Flag(MS_NOSYMFOLLOW, MOUNT_ATTR_NOSYMFOLLOW, clear=True),
    "noatime": Flag(MS_NOATIME, MOUNT_ATTR_NOATIME, mask=MOUNT_ATTR__ATIME),
    "atime": Flag(MS_NOATIME, MOUNT_ATTR_RELATIME, clear=True, mask=MOUNT_ATTR__ATIME),
    "relatime": Flag(MS_RELATIME, MOUNT_ATTR_RELATIME, mask=MOUNT_ATTR__ATIME),
    "norelatime": Flag(MS_RELATIME, MOUNT_ATTR_RELATIME, clear=True, mask=MOUNT_ATTR__ATIME),
    "strictatime": Flag(MS_STRICTATIME, MOUNT_ATTR_STRICTATIME, mask=MOUNT_ATTR__ATIME),
    "nostrictatime": Flag(MS_STRICTATIME, MOUNT_ATTR_RELATIME, clear=True, mask=MOUNT_ATTR__ATIME),
}

# Of the file system, not of the mount point: they have no attribute, and mean nothing to a bind.
_FILE_SYSTEM_FLAGS: Final = {
    "sync": (MS_SYNCHRONOUS, False),
    "async": (MS_SYNCHRONOUS, True),
    "dirsync": (MS_DIRSYNC, False),
    "lazytime": (MS_LAZYTIME, False),
    "nolazytime": (MS_LAZYTIME, True),
    "silent": (MS_SILENT, False),
    "loud": (MS_SILENT, True),
    "iversion": (MS_I_VERSION, False),
    "noiversion": (MS_I_VERSION, True),
    "mand": (MS_MANDLOCK, False),  # of no effect since Linux 5.15
    "nomand": (MS_MANDLOCK, True),
    "acl": (MS_POSIXACL, False),
    "noacl": (MS_POSIXACL, True),
    "remount": (MS_REMOUNT, False),
    "defaults": (0, False),
}

PROPAGATION: Final = {
    "private": MS_PRIVATE,
    "rprivate": MS_PRIVATE | MS_REC,
    "shared": MS_SHARED,
    "rshared": MS_SHARED | MS_REC,
    "slave": MS_SLAVE,
    "rslave": MS_SLAVE | MS_REC,
    "unbindable": MS_UNBINDABLE,
    "runbindable": MS_UNBINDABLE | MS_REC,
}

_OWN: Final = ("bind", "rbind", "idmap", "ridmap", "tmpcopyup")
OPTIONS: Final = frozenset((*_OWN, *_FLAGS, *(f"r{name}" for name in _FLAGS), *_FILE_SYSTEM_FLAGS, *PROPAGATION))
"""Options that mean something here; all others are the file system's own."""


class MountEntry(NamedTuple):
    """One entry. `destination` is absolute and clean. `attr_set`, `attr_clr` are for the mount point itself,
    `all_set`, `all_clr` for every mount below it too (`rro` and its like). `idmap`: "idmap" or "ridmap" when ids are
    mapped, by `uid_map` and `gid_map`, or without them as in the container's user namespace. `copy_up`: a tmpfs begins with
    what the image has in its place (`tmpcopyup`, which runc and crun know)."""

    destination: str
    type: str
    source: str
    bind: bool = False
    recursive: bool = False
    flags: int = 0
    attr_set: int = 0
    attr_clr: int = 0
    all_set: int = 0
    all_clr: int = 0
    propagation: int = 0
    data: str = ""
    idmap: str = ""
    uid_map: str = ""
    gid_map: str = ""
    copy_up: bool = False

    @property
    def read_only(self) -> bool:
        return bool(self.flags & MS_RDONLY)

    @property
    def remount(self) -> bool:
        return bool(self.flags & MS_REMOUNT)

    def describe(self) -> str:
        """For error messages and debugging."""
        return f'"{self.source or self.type}" to rootfs at "{self.destination}"'


def parse(entry: Mapping[str, Any]) -> MountEntry:
    """Errors: InvalidArgument (the destination or the source)."""
    destination = str(entry.get("destination", ""))
    if not destination.startswith("/"):
        raise InvalidArgument(f'mount destination "{destination}" is not absolute')
    destination = posixpath.normpath(destination).replace("//", "/")
    if destination == "/":
        raise InvalidArgument("a mount at / would hide the container's root")
    kind, source = str(entry.get("type") or ""), str(entry.get("source") or "")
    bind = recursive = copy_up = False
    idmap = ""
    flags = attr_set = attr_clr = all_set = all_clr = propagation = 0
    data: list[str] = []
    for option in entry.get("options") or ():
        if option in ("bind", "rbind"):
            bind, recursive = True, option == "rbind"
        elif (flag := _FLAGS.get(option)) is not None:
            flags = flags & ~flag.ms if flag.clear else flags | flag.ms
            attr_set, attr_clr = _combine(flag, attr_set, attr_clr)
        elif option[:1] == "r" and (flag := _FLAGS.get(option[1:])) is not None:
            all_set, all_clr = _combine(flag, all_set, all_clr)
        elif option in _FILE_SYSTEM_FLAGS:
            bit, clear = _FILE_SYSTEM_FLAGS[option]
            flags = flags & ~bit if clear else flags | bit
        elif option in PROPAGATION:
            propagation = PROPAGATION[option]
        elif option in ("idmap", "ridmap"):
            idmap = option
        elif option == "tmpcopyup":
            copy_up = True
        else:
            data.append(option)
    bind = bind or kind == "bind"
    uid_map, gid_map = (id_map(entry.get(key) or (), f"mounts: {key}") for key in ("uidMappings", "gidMappings"))
    if bool(uid_map) != bool(gid_map):
        raise InvalidArgument(f'mount at "{destination}": uidMappings and gidMappings belong together')
    idmap = idmap or ("idmap" if uid_map else "")
    if idmap and not bind:
        raise InvalidArgument(f'mount at "{destination}": only a bind mount can be id-mapped')
    if copy_up and kind != "tmpfs":
        raise InvalidArgument(f'mount at "{destination}": tmpcopyup is for a tmpfs')
    if bind and not source and not flags & MS_REMOUNT:
        raise InvalidArgument(f'bind mount at "{destination}" has no source')
    if not bind and not kind:
        raise InvalidArgument(f'mount at "{destination}" has neither a type nor the option bind')
    return MountEntry(
        destination=destination,
        type="bind" if bind else kind,
        source=source or kind,
        bind=bind,
        recursive=recursive,
        flags=flags,
        attr_set=attr_set,
        attr_clr=attr_clr,
        all_set=all_set,
        all_clr=all_clr,
        propagation=propagation,
        data="" if bind else ",".join(data),
        idmap=idmap,
        uid_map=uid_map,
        gid_map=gid_map,
        copy_up=copy_up,
    )


def _combine(flag: Flag, attr_set: int, attr_clr: int) -> tuple[int, int]:
    if flag.clear:
        return attr_set & ~(flag.attr | flag.mask), attr_clr | flag.attr | flag.mask
    return attr_set & ~flag.mask | flag.attr, attr_clr & ~flag.attr | flag.mask


def parse_all(entries: Sequence[Mapping[str, Any]]) -> tuple[MountEntry, ...]:
    """In the order in which they are mounted."""
    return tuple(map(parse, entries))
