"""The container's root: mounted from the storage driver's descriptions, in the caller's mount namespace."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from wharfie.shim.system import MOUNT_FLAGS, NEUTRAL_OPTIONS, mount
from wharfie.spi.errors import InvalidArgument

_DATA_LIMIT = 4095
"""mount(2) takes one page of data, its last byte a zero."""


def mount_root(mounts: Sequence[tuple[str, str, Sequence[str]]], target: str) -> None:
    """Mount each (type, source, options) on `target`, in order. Errors: OSError naming the target."""
    Path(target).mkdir(mode=0o700, exist_ok=True)
    for kind, source, options in mounts:
        flags, data = _split(options)
        if flags & MOUNT_FLAGS["bind"]:
            mount(source, target, kind, flags & MOUNT_FLAGS["rbind"])
            # The kernel ignores all other flags when it makes a bind mount; they are set by a second call.
            rest = flags & ~MOUNT_FLAGS["rbind"]
            if rest:
                mount("none", target, kind, rest | MOUNT_FLAGS["bind"] | MOUNT_FLAGS["remount"])
        elif len(os.fsencode(",".join(data))) > _DATA_LIMIT:
            _mount_from_common_folder(kind, source, target, flags, data)
        else:
            mount(source, target, kind, flags, ",".join(data))


def _split(options: Sequence[str]) -> tuple[int, list[str]]:
    flags, data = 0, []
    for option in options:
        if option in MOUNT_FLAGS:
            flags |= MOUNT_FLAGS[option]
        elif option not in NEUTRAL_OPTIONS:
            data.append(option)
    return flags, data


def _mount_from_common_folder(type: str, source: str, target: str, flags: int, data: list[str]) -> None:
    """Many lower layers do not fit into a page: name them from the folder that they share."""
    lower = next((option for option in data if option.startswith("lowerdir=")), None)
    folders = lower.removeprefix("lowerdir=").split(":") if lower else []
    if lower is None or not all(folder.startswith("/") for folder in folders):
        raise InvalidArgument(f"mount of {source or type}: options of more than {_DATA_LIMIT} bytes")
    common = os.path.commonpath(folders)
    relative = "lowerdir=" + ":".join(os.path.relpath(folder, common) for folder in folders)
    short = ",".join(relative if option == lower else option for option in data)
    if len(os.fsencode(short)) > _DATA_LIMIT:
        raise InvalidArgument(
            f"mount of {source or type}: {len(folders)} layers do not fit into the {_DATA_LIMIT} bytes of mount(2)"
        )
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(common)
        mount(source, target, type, flags, short)
    finally:
        os.fchdir(here)
        os.close(here)
