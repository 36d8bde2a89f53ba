"""The root of a container with users of its own, where the storage driver's folders have plain owners.

What is on the disk belongs to the ids that the image names, 0 for root, whoever the container's users are on the host:
layers and volumes can be shared between containers of different mappings, and copying, exporting and committing know of
none. The mapping is in the mounts. An overlay cannot be mapped itself, but its layers can (Linux 5.19), each by a mapped
copy of the mount that it is on. Imported by the few makers that need it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from wharfie.shim.idmap import mount_mapped, open_user_namespace
from wharfie.shim.root import mount_root
from wharfie.shim.system import MNT_DETACH, prctl, umount2
from wharfie.spi.errors import InvalidArgument

_PR_SET_SECUREBITS: Final = 28
_SECBIT_NO_SETUID_FIXUP: Final = 4
_libc = ctypes.CDLL(None, use_errno=True)

MountDescription = tuple[str, str, Sequence[str]]


def replace_root(mounts: Sequence[MountDescription], target: str, linux: Mapping[str, Any]) -> None:
    """Mount the root anew, with its ids mapped. It must not be in use. `linux`: of config.json.

    Errors: InvalidArgument (mounts that cannot be mapped), OSError.
    """
    maps = [_text(linux.get(key) or ()) for key in ("uidMappings", "gidMappings")]
    owners = [_first(linux.get(key) or ()) for key in ("uidMappings", "gidMappings")]
    users = open_user_namespace(*maps)
    folder = f"{target}-layers"
    Path(folder).mkdir(mode=0o700, exist_ok=True)
    for _ in mounts:
        umount2(target, 0)
    copies: list[str] = []
    try:
        mapped = [_mapped(mount, users, folder, copies) for mount in mounts]
        # The file system makes its own files, in an overlay's work folder, as who mounted it: that has to be a user who is
        # mapped, and who keeps all capabilities.
        prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP)
        _libc.setfsgid(owners[1])
        _libc.setfsuid(owners[0])
        try:
            mount_root(mapped, target)
        finally:
            _libc.setfsuid(0)
            _libc.setfsgid(0)
            prctl(_PR_SET_SECUREBITS, 0)
    finally:
        os.close(users)
        for copy in copies:
            umount2(copy, MNT_DETACH)  # the overlay has clones of its own
            Path(copy).rmdir()
        with suppress(OSError):
            Path(folder).rmdir()


def _mapped(mount: MountDescription, users: int, folder: str, copies: list[str]) -> MountDescription:
    kind, source, options = mount
    if kind == "overlay":
        return kind, source, _mapped_overlay(options, users, folder, copies)
    if {"bind", "rbind"} & set(options):
        return kind, _copy(source, users, folder, copies), [option for option in options if option != "rbind"] + ["bind"]
    raise InvalidArgument(f"a root of type {kind} cannot be had with remapped users; use --userns=host, or another storage")


def _mapped_overlay(options: Sequence[str], users: int, folder: str, copies: list[str]) -> list[str]:
    given = dict(option.split("=", 1) for option in options if "=" in option)
    lower = ":".join(_copy(layer, users, folder, copies) for layer in given["lowerdir"].split(":"))
    changed = {"lowerdir": lower}
    if "upperdir" in given:
        common = os.path.commonpath((given["upperdir"], given["workdir"]))  # both have to be on one mount
        copy = _copy(common, users, folder, copies)
        changed |= {name: f"{copy}/{os.path.relpath(given[name], common)}" for name in ("upperdir", "workdir")}
    names = ((option, option.partition("=")[0]) for option in options)
    return [f"{name}={changed[name]}" if name in changed else option for option, name in names]


def _copy(source: str, users: int, folder: str, copies: list[str]) -> str:
    place = f"{folder}/{len(copies)}"
    Path(place).mkdir(mode=0o700)
    mount_mapped(source, place, users)
    copies.append(place)
    return place


def _text(entries: Sequence[Mapping[str, int]]) -> str:
    return "".join(f"{entry['containerID']} {entry['hostID']} {entry['size']}\n" for entry in entries)


def _first(entries: Sequence[Mapping[str, int]]) -> int:
    """Whom id 0 is mapped to. Errors: InvalidArgument."""
    for entry in entries:
        if entry["containerID"] == 0:
            return entry["hostID"]
    raise InvalidArgument("the container's users have no id 0")
