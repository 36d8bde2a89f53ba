"""Device nodes and the usual links in a container's /dev (OCI runtime-spec, config-linux.md "Devices")."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from wharfie.spi.errors import InvalidArgument
from wharfie_runtime_native.constants import AT_EMPTY_PATH, AT_FDCWD, MS_PRIVATE, OPEN_TREE_CLOEXEC, OPEN_TREE_CLONE
from wharfie_runtime_native.errors import reason
from wharfie_runtime_native.mounts import MountEntry
from wharfie_runtime_native.paths import make_in_root, open_in_root
from wharfie_runtime_native.rootfs import Root, attach
from wharfie_runtime_native.syscalls import mount_setattr, open_tree

_TYPES: Final = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


class Device(NamedTuple):
    """A node to make. `path` is absolute in the container."""

    path: str
    type: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0


DEFAULTS: Final = (
    Device("/dev/null", "c", 1, 3),
    Device("/dev/zero", "c", 1, 5),
    Device("/dev/full", "c", 1, 7),
    Device("/dev/random", "c", 1, 8),
    Device("/dev/urandom", "c", 1, 9),
    Device("/dev/tty", "c", 5, 0),
)

LINKS: Final = (
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
)


def parse(entries: Sequence[Mapping[str, Any]]) -> tuple[Device, ...]:
    """`linux.devices` and the defaults; an entry for a default's path replaces it. Errors: InvalidArgument."""
    devices = {device.path: device for device in DEFAULTS}
    for entry in entries:
        path, kind = str(entry.get("path", "")), str(entry.get("type", ""))
        if not path.startswith("/") or posixpath.normpath(path) != path:
            raise InvalidArgument(f'device path "{path}" is not absolute and clean')
        if kind not in _TYPES:
            raise InvalidArgument(f'device {path} has type "{kind}"; types are c, u, b and p')
        devices[path] = Device(
            path,
            kind,
            int(entry.get("major") or 0),
            int(entry.get("minor") or 0),
            int(entry["fileMode"]) & 0o7777 if entry.get("fileMode") is not None else 0o666,
            int(entry.get("uid") or 0),
            int(entry.get("gid") or 0),
        )
    return tuple(devices.values())


def wanted(mounts: Sequence[MountEntry]) -> bool:
    """Whether /dev is the container's own. On a /dev that is bound from the host nothing is made."""
    return not any(entry.bind and entry.destination == "/dev" for entry in mounts)


def make(root: Root, devices: Sequence[Device], *, by_bind: bool) -> None:
    """Make the nodes. `by_bind`: in a user namespace mknod is refused, so the host's nodes are bound instead.

    Errors: InvalidArgument naming the device.
    """
    parents: dict[str, int] = {}
    try:
        for device in devices:
            folder, name = posixpath.split(device.path)
            if folder not in parents:
                parents[folder] = _open_folder(root, folder)
            if by_bind:
                _bind(root, device)
            else:
                _mknod(parents[folder], name, device)
    finally:
        for fd in parents.values():
            os.close(fd)


def _open_folder(root: Root, folder: str) -> int:
    try:
        return make_in_root(root.fd, folder, directory=True)
    except OSError as error:
        raise InvalidArgument(f"cannot make devices in {folder}: {reason(error)}") from error


def _mknod(parent: int, name: str, device: Device) -> None:
    number = os.makedev(device.major, device.minor)
    kind = _TYPES[device.type]
    try:
        try:
            os.mknod(name, kind | device.mode, number, dir_fd=parent)  # the umask is 0 here
        except FileExistsError:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_IFMT(found.st_mode) != kind or (kind != stat.S_IFIFO and found.st_rdev != number):
                raise
        if device.uid or device.gid:
            os.chown(name, device.uid, device.gid, dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        raise InvalidArgument(f"cannot make device {device.path}: {reason(error)}") from error


def _bind(root: Root, device: Device) -> None:
    try:
        tree = open_tree(AT_FDCWD, _on_host(device), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)
        mount_setattr(tree, "", 0, propagation=MS_PRIVATE)
        target = make_in_root(root.fd, device.path, directory=False)
        attach(tree, target)
    except OSError as error:
        raise InvalidArgument(f"cannot bind device {device.path}: {reason(error)}") from error
    os.close(target)
    os.close(tree)


def _on_host(device: Device) -> str:
    """Where the host has the device: under the same name, or under the one that the kernel gave it."""
    number, kind = os.makedev(device.major, device.minor), _TYPES[device.type]
    try:
        found = os.stat(device.path)
        if stat.S_IFMT(found.st_mode) == kind and found.st_rdev == number:
            return device.path
    except OSError:
        pass
    folder = "block" if kind == stat.S_IFBLK else "char"
    with open(f"/sys/dev/{folder}/{device.major}:{device.minor}/uevent", encoding="utf-8") as file:
        lines = file.read().splitlines()
    for line in lines:
        if line.startswith("DEVNAME="):
            return f"/dev/{line.removeprefix('DEVNAME=')}"
    return device.path


def link(root: Root) -> None:
    """The links that programs expect in /dev; what is there already stays, except a ptmx of its own."""
    dev = open_in_root(root.fd, "/dev")
    try:
        for name, target in LINKS:
            if name == "core" and not os.path.exists("/proc/kcore"):
                continue
            try:
                os.symlink(target, name, dir_fd=dev)
            except FileExistsError:
                if name == "ptmx":
                    os.unlink(name, dir_fd=dev)
                    os.symlink(target, name, dir_fd=dev)
    finally:
        os.close(dev)


def bind_console(root: Root, slave: int) -> None:
    """/dev/console is the container's own terminal: bound by its descriptor, not by a name below /dev/pts."""
    target = make_in_root(root.fd, "/dev/console", directory=False)
    tree = open_tree(slave, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH)
    attach(tree, target)
    os.close(tree)
    os.close(target)
