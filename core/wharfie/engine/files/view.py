"""A container's root, put together for a worker: its root file system with the volumes, binds and files mounted in it.

Of a running container the mounts are copied as they are, so what was mounted is seen wherever it came from; /proc, /sys and
/dev are left out. Of one that does not run the storage driver's mounts and the volumes' folders are mounted. Both happen in
a mount namespace that nobody else sees and that ends with the worker.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wharfie.engine.files.mounting import AT_RECURSIVE, move_mount, open_tree
from wharfie.shim import safe_path
from wharfie.shim.root import mount_root
from wharfie.shim.system import CLONE_NEWNS, MOUNT_FLAGS, MS_BIND, MS_PRIVATE, MS_REC, mount, setns, unshare
from wharfie.spi.inroot import open_in_root

_CLONE_NEWUSER = 0x10000000  # linux/sched.h
_NS_GET_USERNS = 0xB701  # linux/nsfs.h
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserMount:
    """One mount of the user's. `source`: the host's folder or file, for a container that does not run, and `part` what of
    it is mounted."""

    destination: str
    source: str = ""
    part: str = ""
    read_only: bool = False
    recursive: bool = False


def user_mounts(documents: Sequence[Mapping[str, Any]]) -> list[UserMount]:
    """As they came in a request, those further up first."""
    found = [UserMount(**document) for document in documents]
    return sorted(found, key=lambda entry: entry.destination.rstrip("/").count("/"))


def of_running(namespace: int, mounts: Sequence[UserMount], at: str) -> int:
    """The root (a descriptor) of the container whose mount namespace the descriptor is; `at`: a folder to mount on."""
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    setns(namespace, CLONE_NEWNS)
    try:
        top = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        root_tree = open_tree(top, "", 0)
        trees = [(entry, _copy_of(top, entry)) for entry in mounts]
    finally:
        setns(own, CLONE_NEWNS)  # and with it the host's root as the process's own
    os.close(own)
    os.close(top)
    _leave()
    target = os.open(at, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    move_mount(root_tree, target)
    root = safe_path.open_root(at)
    for entry, tree in trees:
        if tree is not None:
            _attach(root, entry, tree)
    _become_root_of(namespace)
    return root


def _become_root_of(namespace: int) -> None:
    """With users of the container's own, owners are told, and made, as it has them: this process becomes their root."""
    users = fcntl.ioctl(namespace, _NS_GET_USERNS)
    if not os.path.samestat(os.fstat(users), os.stat("/proc/self/ns/user")):
        setns(users, _CLONE_NEWUSER)
        os.setgroups(())
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    os.close(users)


def _copy_of(top: int, entry: UserMount) -> int | None:
    """A copy of what is mounted there; None when the container has nothing at that place any more."""
    try:
        found = open_in_root(top, os.fsencode(entry.destination), os.O_PATH)
    except OSError as error:
        if error.errno in _MISSING:
            return None
        raise
    try:
        return open_tree(found, "", AT_RECURSIVE if entry.recursive else 0)
    finally:
        os.close(found)


def of_stopped(
    rootfs: Sequence[tuple[str, str, Sequence[str]]], mounts: Sequence[UserMount], at: str, *, read_only: bool
) -> int:
    """The root of a container that does not run; `read_only`: its root file system must not be written."""
    _leave()
    mount_root(rootfs, at)
    root = safe_path.open_root(at)
    trees = []
    for entry in mounts:
        tree = _tree_of(entry)
        is_folder = os.path.isdir(f"/proc/self/fd/{tree}")  # noqa: PTH112  # a descriptor
        safe_path.ensure_in(root, entry.destination.rstrip("/") + ("/" if is_folder else ""))
        trees.append((entry, tree))
    if read_only:
        _make_read_only(at)
    for entry, tree in trees:
        _attach(root, entry, tree)
        if entry.read_only:
            found = open_in_root(root, os.fsencode(entry.destination), os.O_PATH)
            _make_read_only(f"/proc/self/fd/{found}")
            os.close(found)
    return root


def _tree_of(entry: UserMount) -> int:
    flags = AT_RECURSIVE if entry.recursive else 0
    if not entry.part:
        return open_tree(-1, entry.source, flags)
    folder = os.open(entry.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = open_in_root(folder, os.fsencode(entry.part), os.O_PATH)
    finally:
        os.close(folder)
    try:
        return open_tree(found, "", flags)
    finally:
        os.close(found)


def _leave() -> None:
    """A mount namespace of our own, from which nothing spreads."""
    unshare(CLONE_NEWNS)
    mount("none", "/", "none", MS_REC | MS_PRIVATE)


def _attach(root: int, entry: UserMount, tree: int) -> None:
    try:
        place = open_in_root(root, os.fsencode(entry.destination), os.O_PATH)
    except OSError as error:
        if error.errno in _MISSING:
            return
        raise
    try:
        move_mount(tree, place)
    finally:
        os.close(place)
        os.close(tree)


def _make_read_only(target: str) -> None:
    mount("none", target, "none", MS_BIND | MOUNT_FLAGS["remount"] | MOUNT_FLAGS["ro"])
