"""Namespaces of a container: which are new, which are joined (OCI runtime-spec, config-linux.md "Namespaces")."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fcntl import ioctl
from typing import Any, Final

from wharfie.spi.errors import InvalidArgument
from wharfie_runtime_native.constants import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    IFF_UP,
    SIOCGIFFLAGS,
    SIOCSIFFLAGS,
)
from wharfie_runtime_native.errors import reason
from wharfie_runtime_native.syscalls import setns

FLAGS: Final = {
    "user": CLONE_NEWUSER,
    "pid": CLONE_NEWPID,
    "mount": CLONE_NEWNS,
    "network": CLONE_NEWNET,
    "uts": CLONE_NEWUTS,
    "ipc": CLONE_NEWIPC,
    "cgroup": CLONE_NEWCGROUP,
}
"""By OCI name, in the order in which existing ones are joined: the user namespace first, as it owns the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespaces:
    """`new`: names of those to make. `joined`: paths of those to enter, by name. What is in neither is the host's."""

    new: frozenset[str] = frozenset()
    joined: Mapping[str, str] = field(default_factory=dict)

    def own(self, name: str) -> bool:
        """Whether the container has a namespace of this type that is not simply the host's."""
        return name in self.new or name in self.joined

    def all_flags(self) -> int:
        """New and joined ones as flags of setns(2)."""
        return self.flags() | sum(FLAGS[name] for name in self.joined)

    def flags(self, *without: str) -> int:
        """The new ones as flags of unshare(2)."""
        flags = 0
        for name in self.new.difference(without):
            flags |= FLAGS[name]
        return flags


def parse(entries: Sequence[Mapping[str, Any]]) -> Namespaces:
    """Errors: InvalidArgument (unknown type, one type twice, no mount namespace)."""
    new: set[str] = set()
    joined: dict[str, str] = {}
    for entry in entries:
        name = str(entry.get("type", ""))
        if name not in FLAGS:
            raise InvalidArgument(f'namespace type "{name}" is unknown; known are {", ".join(sorted(FLAGS))}')
        if name in new or name in joined:
            raise InvalidArgument(f'namespace type "{name}" is given twice')
        if path := str(entry.get("path") or ""):
            joined[name] = path
        else:
            new.add(name)
    if "mount" not in new:
        raise InvalidArgument("a container needs a mount namespace of its own: linux.namespaces has no new one")
    if "user" in joined:
        raise InvalidArgument("joining a user namespace by path is not supported; give it id mappings instead")
    return Namespaces(new=frozenset(new), joined=joined)


def open_joined(namespaces: Namespaces) -> dict[str, int]:
    """Descriptors of the namespaces to enter, opened while the host's paths are still there."""
    return {name: open_namespace(name, namespaces.joined[name]) for name in FLAGS if name in namespaces.joined}


def open_namespace(name: str, path: str) -> int:
    """A descriptor for setns(2). Errors: InvalidArgument."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidArgument(f"cannot join {name} namespace {path}: {reason(error)}") from error


def enter(opened: Mapping[str, int], *without: str) -> None:
    """Join namespaces that `open_joined` opened."""
    for name, fd in opened.items():
        if name not in without:
            try:
                setns(fd, FLAGS[name])
            except OSError as error:
                raise InvalidArgument(f"cannot join {name} namespace: {reason(error)}") from error


def loopback_up() -> None:
    """A new network namespace has its loopback interface, but down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack_from("h", ioctl(control, SIOCGIFFLAGS, request), 16)[0]
        ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def id_map(entries: Sequence[Mapping[str, Any]]) -> str:
    """The text of /proc/<pid>/uid_map and gid_map (user_namespaces(7))."""
    return "".join(f"{entry['containerID']} {entry['hostID']} {entry['size']}\n" for entry in entries)
