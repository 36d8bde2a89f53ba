"""The container's root: mounts put in place, masked, and pivoted into. Runs in the child, in its new mount namespace.

All is done while the host's files are still there, on descriptors resolved within the new root, so nothing in the
container's file system can steer a mount elsewhere. Trees to bind are cloned *first*, while mounts still are members
of the host's peer groups (`sources`); then the whole namespace is made a slave of the host, and what is to be shared is
shared by the clones alone.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping
from typing import Final

from wharfie.shim.cgroups import ROOT as CGROUP_ROOT
from wharfie.spi.errors import DriverError, InvalidArgument
from wharfie_runtime_native.constants import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    MNT_DETACH,
    MOUNT_ATTR_RDONLY,
    MOVE_MOUNT_F_EMPTY_PATH,
    MOVE_MOUNT_T_EMPTY_PATH,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_SHARED,
    MS_SLAVE,
    OPEN_TREE_CLOEXEC,
    OPEN_TREE_CLONE,
    PROC_ROOT_INO,
    PROC_SUPER_MAGIC,
)
from wharfie_runtime_native.errors import reason
from wharfie_runtime_native.mounts import MountEntry
from wharfie_runtime_native.paths import is_directory, make_in_root, open_in_root, proc_fd
from wharfie_runtime_native.syscalls import fstatfs_type, mount, mount_setattr, move_mount, open_tree, pivot_root, umount2

_ORDINARY: Final = frozenset(("/proc", "/sys", "/dev"))
"""Destinations that may not be links: what is later masked below them is looked for under these names."""

# Files of procfs that a bind may cover, as LXCFS does (runc allows the same ones).
_COVERABLE: Final = frozenset(
    f"/proc/{name}"
    for name in [
        "cpuinfo",
        "diskstats",
        "loadavg",
        "meminfo",
        "slabinfo",
        "stat",
        "swaps",
        "uptime",
        "net/dev",
        "sys/kernel/ns_last_pid",
        "sys/crypto/fips_enabled",
    ]
)


def clone_tree(path: str, *, recursive: bool) -> int:
    """A detached copy of the mount at a host path."""
    return open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0))


def attach(tree: int, target: int) -> None:
    """Put a detached mount on what `target` is opened on."""
    move_mount(tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)


class Root:
    """The new root, not yet pivoted into. `fd` is opened on it."""

    def __init__(self, rootfs: str, tree: int, binds: dict[MountEntry, int], *, propagation: int, own_users: bool) -> None:
        """`tree`, `binds`: as `sources` made them. `propagation`: what the root is going to have. `own_users`: whether
        this is a user namespace of the container's."""
        self._binds = binds
        self._own_users = own_users
        # From here on nothing in this namespace is shared, and no mount made here is seen anywhere else.
        mount("", "/", "", MS_SLAVE | MS_REC, "")
        # pivot_root wants a mount of its own, with parents that are not shared. A slave hears of what the host mounts.
        first = MS_SLAVE if propagation & MS_SLAVE else MS_PRIVATE
        mount_setattr(tree, "", 0, propagation=first)
        attach_root(tree, rootfs)
        self.fd = os.open(proc_fd(tree), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        os.close(tree)

    def mount(self, entry: MountEntry, cgroups: Mapping[str, str], *, cgroup_namespace: bool) -> None:
        """Put one entry in place. Errors: InvalidArgument naming the mount and the kernel's word."""
        try:
            tree = self._binds.pop(entry, -1)
            if entry.copy_up and not self._is_there(entry.destination):
                entry = entry._replace(copy_up=False)
            target = self._target(entry, tree)
            if entry.remount:
                self._remount(entry, target)
            elif entry.bind:
                self._bind(entry, tree, target)
            elif tree >= 0:
                self._host_file_system(entry, tree, target)
            elif entry.type == "cgroup" and "" not in cgroups:
                self._cgroup_v1(entry, target, cgroups, namespace=cgroup_namespace)
            elif entry.type in ("cgroup", "cgroup2"):
                self._cgroup_v2(entry, target, namespace=cgroup_namespace)
            else:
                self._file_system(entry, target, type=entry.type)
            os.close(target)
        except OSError as error:
            told = error.strerror not in (None, os.strerror(error.errno or 0))  # with the call that failed
            raise InvalidArgument(
                f"error mounting {entry.describe()}: {error.strerror if told else reason(error)}"
            ) from error

    def _is_there(self, path: str) -> bool:
        try:
            os.close(open_in_root(self.fd, path))
        except FileNotFoundError:
            return False
        return True

    def _target(self, entry: MountEntry, tree: int) -> int:
        """The mount point, made when it is missing. Errors: InvalidArgument (a link, or inside procfs)."""
        if entry.remount:
            return open_in_root(self.fd, entry.destination)
        directory = tree < 0 or is_directory(tree)
        target = make_in_root(self.fd, entry.destination, directory=directory)
        if entry.type in ("proc", "sysfs") or entry.destination in _ORDINARY:
            self._refuse_link(entry)
        if fstatfs_type(target) == PROC_SUPER_MAGIC:
            self._refuse_inside_proc(entry, tree, target)
        return target

    def _refuse_link(self, entry: MountEntry) -> None:
        plain = open_in_root(self.fd, entry.destination, os.O_PATH | os.O_NOFOLLOW)
        ordinary = is_directory(plain)
        os.close(plain)
        parts = entry.destination.strip("/").split("/")
        for index in range(1, len(parts)):
            fd = open_in_root(self.fd, "/".join(parts[:index]), os.O_PATH | os.O_NOFOLLOW)
            ordinary = ordinary and is_directory(fd)
            os.close(fd)
        if not ordinary:
            raise InvalidArgument(
                f'filesystem "{entry.type}" must be mounted on ordinary directory: '
                f'"{entry.destination}" in the image is a link'
            )

    def _refuse_inside_proc(self, entry: MountEntry, tree: int, target: int) -> None:
        """Nothing but procfs itself may cover /proc, or security files would be whatever the image says."""
        if os.fstat(target).st_ino == PROC_ROOT_INO:
            if entry.type == "proc" or (tree >= 0 and fstatfs_type(tree) == PROC_SUPER_MAGIC):
                return
        elif entry.destination in _COVERABLE:
            return
        raise InvalidArgument(f'"{entry.destination}" cannot be mounted because it is inside /proc')

    def _bind(self, entry: MountEntry, tree: int, target: int) -> None:
        if is_directory(tree) != is_directory(target):  # which the kernel calls an invalid argument
            raise OSError(errno.ENOTDIR, f"mount {entry.source}:{entry.destination}: not a directory")
        if entry.attr_set or entry.attr_clr:
            mount_setattr(tree, "", 0, attr_set=entry.attr_set, attr_clr=entry.attr_clr)
        if entry.all_set or entry.all_clr:
            mount_setattr(tree, "", AT_RECURSIVE, attr_set=entry.all_set, attr_clr=entry.all_clr)
        if self._own_users and entry.propagation & MS_SHARED:
            # What is mounted inside of a user namespace is not for the host: a peer group of the container's own.
            self._propagate(tree, MS_SLAVE | entry.propagation & MS_REC)
        attach(tree, target)
        # After the move: joining a shared parent would make it shared again.
        propagation = entry.propagation or MS_PRIVATE | MS_REC
        self._propagate(tree, propagation)
        os.close(tree)

    def _propagate(self, tree: int, propagation: int) -> None:
        recursive = AT_RECURSIVE if propagation & MS_REC else 0
        mount_setattr(tree, "", recursive, propagation=propagation & ~MS_REC)

    def _file_system(self, entry: MountEntry, target: int, *, type: str) -> None:
        # What is copied in has to be written, so read-only comes afterwards.
        flags = entry.flags & ~MS_RDONLY if entry.copy_up else entry.flags
        mount(entry.source, proc_fd(target), type, flags, entry.data)
        if not (entry.copy_up or entry.all_set or entry.all_clr or entry.propagation):
            return
        mounted = open_in_root(self.fd, entry.destination)
        if entry.copy_up:
            self._copy_up(target, mounted)
            mount_setattr(mounted, "", 0, attr_set=entry.attr_set & MOUNT_ATTR_RDONLY)
        if entry.all_set or entry.all_clr:
            mount_setattr(mounted, "", AT_RECURSIVE, attr_set=entry.all_set, attr_clr=entry.all_clr)
        if entry.propagation:
            self._propagate(mounted, entry.propagation)
        os.close(mounted)

    def _host_file_system(self, entry: MountEntry, tree: int, target: int) -> None:
        """A file system of a namespace that the container shares with the host, which it may not mount from within a user
        namespace of its own: then it is the host's mount that it gets."""
        try:
            self._file_system(entry, target, type=entry.type)
            os.close(tree)
        except PermissionError:
            self._bind(entry, tree, target)

    def _remount(self, entry: MountEntry, target: int) -> None:
        if not entry.bind:
            mount(entry.source, proc_fd(target), entry.type, entry.flags, entry.data)
        if entry.attr_set or entry.attr_clr:
            mount_setattr(target, "", 0, attr_set=entry.attr_set, attr_clr=entry.attr_clr)
        if entry.all_set or entry.all_clr:
            mount_setattr(target, "", AT_RECURSIVE, attr_set=entry.all_set, attr_clr=entry.all_clr)
        if entry.propagation:
            self._propagate(target, entry.propagation)

    def _copy_up(self, covered: int, mounted: int) -> None:
        """Copy what is under a mount onto it. A descriptor that was had before still shows what is under it."""
        from wharfie.shim.copy_up import copy_content  # podman alone asks for it

        source = os.open(proc_fd(covered), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        target = os.open(proc_fd(mounted), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        copy_content(source, target)
        os.close(source)
        os.close(target)

    def _cgroup_v2(self, entry: MountEntry, target: int, *, namespace: bool) -> None:
        """The group as the root of its tree, with a cgroup namespace; the host's tree without one.

        The host's tree is a bind mount: a new mount would set the tree's options, such as nsdelegate, to its own for all.
        """
        if namespace:
            self._file_system(entry, target, type="cgroup2")
            return
        tree = clone_tree(CGROUP_ROOT, recursive=False)
        mount_setattr(tree, "", 0, attr_set=entry.attr_set, propagation=MS_PRIVATE)
        attach(tree, target)
        os.close(tree)

    def _cgroup_v1(self, entry: MountEntry, target: int, cgroups: Mapping[str, str], *, namespace: bool) -> None:
        """A tmpfs with a folder for each hierarchy that shows the container's own group, and a link for each
        controller's name where several share one."""
        flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
        mount("tmpfs", proc_fd(target), "tmpfs", flags, "mode=755")
        base = open_in_root(self.fd, entry.destination)
        for name, directory in cgroups.items():
            os.mkdir(name, 0o755, dir_fd=base)
            point = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=base)
            if namespace:
                option = name if name != "systemd" else "none,name=systemd"
                mount("cgroup", proc_fd(point), "cgroup", entry.flags & ~MS_RDONLY, option)
                os.close(point)
                point = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=base)
                if entry.read_only:
                    mount_setattr(point, "", 0, attr_set=MOUNT_ATTR_RDONLY)
            else:
                tree = clone_tree(directory, recursive=False)
                mount_setattr(tree, "", 0, attr_set=entry.attr_set, propagation=MS_PRIVATE)
                attach(tree, point)
                os.close(tree)
            os.close(point)
            for alias in name.split(","):
                if alias != name:
                    os.symlink(name, alias, dir_fd=base)
        if entry.read_only:
            mount_setattr(base, "", 0, attr_set=MOUNT_ATTR_RDONLY)
        os.close(base)

    def mask(self, paths: Iterable[str], null: int) -> None:
        """Hide files behind /dev/null and folders behind an empty read-only tmpfs. `null` is the *host's* /dev/null,
        opened and checked before: the container's could be a link (CVE-2025-31133)."""
        for path in paths:
            try:
                target = open_in_root(self.fd, path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if is_directory(target):
                mount("tmpfs", proc_fd(target), "tmpfs", MS_RDONLY, "nr_blocks=1,nr_inodes=1")
            else:
                tree = open_tree(null, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH)
                mount_setattr(tree, "", 0, propagation=MS_PRIVATE)  # the host's /dev is shared, as systemd makes it
                attach(tree, target)
                os.close(tree)
            os.close(target)

    def make_read_only(self, paths: Iterable[str]) -> None:
        """Make existing paths, and what is mounted below them, read-only."""
        for path in paths:
            try:
                target = open_in_root(self.fd, path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            tree = open_tree(target, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE)
            mount_setattr(tree, "", AT_RECURSIVE, attr_set=MOUNT_ATTR_RDONLY)
            attach(tree, target)
            os.close(tree)
            os.close(target)

    def make_directory(self, path: str) -> None:
        """Make a working directory that is not there. Errors: InvalidArgument."""
        try:
            os.close(make_in_root(self.fd, path, directory=True))
        except OSError as error:
            raise InvalidArgument(f"mkdir {path}: {reason(error)}") from error

    def reopen(self, path: str) -> int:
        """A descriptor of a path in the root as it is now mounted."""
        return open_in_root(self.fd, path)

    def enter(self, *, pivot: bool, read_only: bool, propagation: int) -> None:
        """Make this the root directory, with nothing of the old one left; without `pivot` the old one is covered."""
        if pivot:
            self._pivot()
        else:
            self._move()
        os.close(self.fd)
        if read_only:
            mount_setattr(AT_FDCWD, "/", 0, attr_set=MOUNT_ATTR_RDONLY)
        if propagation:
            mount_setattr(AT_FDCWD, "/", AT_RECURSIVE if propagation & MS_REC else 0, propagation=propagation & ~MS_REC)

    def _pivot(self) -> None:
        old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fchdir(self.fd)
        # pivot_root(2), NOTES: the old root is stacked on the new one, where it can be reached by its descriptor.
        pivot_root(".", ".")
        os.fchdir(old)
        umount2(".", MNT_DETACH)
        os.chdir("/")
        os.close(old)

    def _move(self) -> None:
        """Put the root over the host's, and be in it. What was mounted on the host's stays underneath, unreachable."""
        os.fchdir(self.fd)
        move_mount(AT_FDCWD, ".", AT_FDCWD, "/", 0)
        os.chroot(".")
        os.chdir("/")


def attach_root(tree: int, rootfs: str) -> None:
    """Put the new root where hooks look for it; where a user namespace may not look at the folders above, on the old root,
    which is gone a moment later."""
    try:
        target = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (PermissionError, FileNotFoundError):  # or no such path in a mount namespace joined by path
        target = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    attach(tree, target)
    os.close(target)


def open_null() -> int:
    """The host's /dev/null. Errors: DriverError (it is something else)."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    status = os.fstat(null)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(1, 3):
        os.close(null)
        raise DriverError("/dev/null on this host is not the null device")
    return null
