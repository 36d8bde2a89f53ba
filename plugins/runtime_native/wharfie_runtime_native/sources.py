"""Detached copies of the root and of all that is to be bound, taken in the runtime's own namespaces: with its privileges,
before a user namespace, and with its paths, before a mount namespace joined by path."""

from __future__ import annotations

import os
from typing import Final

from wharfie.spi.errors import InvalidArgument
from wharfie_runtime_native.constants import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    CLONE_NEWNS,
    OPEN_TREE_CLOEXEC,
    OPEN_TREE_CLONE,
)
from wharfie_runtime_native.errors import reason
from wharfie_runtime_native.mounts import MountEntry
from wharfie_runtime_native.namespaces import open_namespace
from wharfie_runtime_native.paths import open_in_root
from wharfie_runtime_native.plan import Plan
from wharfie_runtime_native.rootfs import clone_tree
from wharfie_runtime_native.syscalls import open_tree, setns

# File systems that show a namespace, which one may mount only where one owns it; and where the host has them.
_SHOWN: Final = {"sysfs": ("network", "/sys"), "mqueue": ("ipc", "/dev/mqueue"), "proc": ("pid", "/proc")}


def clone(rootfs: str, plan: Plan) -> tuple[int, dict[MountEntry, int]]:
    """The root, and what each entry of `mounts` binds. A file system that a container with users of its own may not mount,
    as it shares with the host what that shows, is bound from the host if need be.

    Errors: InvalidArgument (a source that is not there, ids that cannot be mapped).
    """
    root = clone_tree(rootfs, recursive=True)
    trees: dict[MountEntry, int] = {}
    for entry in plan.mounts:
        if entry.bind and not entry.remount:
            trees[entry] = _clone(entry, recursive=entry.recursive)
        elif entry.type in _SHOWN and plan.namespaces.own("user"):
            namespace, place = _SHOWN[entry.type]
            # The host's view of processes is right for a container among them, and for no other.
            shared = namespace not in (plan.namespaces.joined if entry.type == "proc" else ())
            if shared and namespace not in plan.namespaces.new and os.path.isdir(place):
                trees[entry] = _clone(entry._replace(source=place), recursive=True)
    if any(entry.copy_up for entry in plan.mounts):
        from wharfie.shim import copy_up  # noqa: F401  # now: a user namespace may not see where it is imported from
    mapped = [entry for entry in trees if entry.idmap]
    if mapped:
        _map_ids(mapped, trees, plan)
    return root, trees


def _clone(entry: MountEntry, *, recursive: bool) -> int:
    try:
        _, proc, pid, root, *rest = f"{entry.source}////".split("/", 4)
        if (proc, root) == ("proc", "root") and pid.isdecimal():
            return _clone_of(pid, f"/{rest[0].strip('/')}", recursive=recursive)
        return clone_tree(entry.source, recursive=recursive)
    except OSError as error:
        raise InvalidArgument(f"error mounting {entry.describe()}: {entry.source}: {reason(error)}") from error


def _clone_of(pid: str, path: str, *, recursive: bool) -> int:
    """A copy of what another process has at a path. The kernel copies mounts of one's own mount namespace only, so it is
    entered for that."""
    here, root = (os.open(name, os.O_RDONLY | os.O_CLOEXEC) for name in ("/proc/self/ns/mnt", "/"))
    there = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(there, CLONE_NEWNS)
        try:
            top = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            found = open_in_root(top, path)
            flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
            return open_tree(found, "", flags)
        finally:
            setns(here, CLONE_NEWNS)
            os.fchdir(root)
            os.chroot(".")
    finally:
        for fd in (here, root, there):
            os.close(fd)


def _map_ids(entries: list[MountEntry], trees: dict[MountEntry, int], plan: Plan) -> None:
    from wharfie.shim import idmap  # few containers have such a mount

    user_namespaces: dict[tuple[str, str], int] = {}
    for entry in entries:
        maps = (entry.uid_map or plan.uid_map, entry.gid_map or plan.gid_map)
        if maps not in user_namespaces:
            joined = plan.namespaces.joined.get("user")
            if joined is not None and not entry.uid_map:
                user_namespaces[maps] = open_namespace("user", joined)
            elif all(maps):
                user_namespaces[maps] = idmap.open_user_namespace(*maps)
            else:
                raise InvalidArgument(
                    f'mount at "{entry.destination}": {entry.idmap} needs uidMappings and gidMappings, of the mount or of '
                    "a user namespace"
                )
        recursive = entry.idmap == "ridmap"
        idmap.map_ids(trees[entry], user_namespaces[maps], recursive=recursive, what=entry.describe())
