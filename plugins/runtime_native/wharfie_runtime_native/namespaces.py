"""Namespaces of a container: which are new, which are joined (OCI runtime-spec, config-linux.md "Namespaces")."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from fcntl import ioctl
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from wharfie.spi.errors import InvalidArgument
from wharfie_runtime_native.constants import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
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
    "network": CLONE_NEWNET,
    "uts": CLONE_NEWUTS,
    "ipc": CLONE_NEWIPC,
    "cgroup": CLONE_NEWCGROUP,
    "time": CLONE_NEWTIME,
    "mount": CLONE_NEWNS,
}
"""By OCI name, in the order in which existing ones are joined: the mount namespace last, as it takes the paths away."""


_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class Namespaces(NamedTuple):
    """`new`: names of those to make. `joined`: paths of those to enter, by name. What is in neither is the host's."""

    new: frozenset[str] = frozenset()
    joined: Mapping[str, str] = _NOTHING

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
    if "mount" not in new and "mount" not in joined:
        raise InvalidArgument("a container needs a mount namespace of its own: linux.namespaces has none")
    return Namespaces(new=frozenset(new), joined=joined)


def open_joined(namespaces: Namespaces) -> dict[str, int]:
    """Descriptors of the namespaces to enter, opened while the host's paths are still there. Errors: InvalidArgument."""
    return {name: open_namespace(name, namespaces.joined[name]) for name in FLAGS if name in namespaces.joined}


def spare_the_host(namespaces: Namespaces) -> None:
    """In the parent: a mount namespace joined by path must not be the caller's own or its parent's, whose root would be
    replaced for all in it. Errors: InvalidArgument."""
    if (path := namespaces.joined.get("mount")) is None:
        return
    wanted = open_namespace("mount", path)
    try:
        for own in ("self", str(os.getppid()), "1"):
            try:
                if os.path.samestat(os.fstat(wanted), os.stat(f"/proc/{own}/ns/mnt")):
                    raise InvalidArgument(f"cannot join mount namespace {path}: it is the host's own")
            except OSError:  # not to be seen, so not to be joined either
                continue
    finally:
        os.close(wanted)


def open_namespace(name: str, path: str) -> int:
    """A descriptor for setns(2). Errors: InvalidArgument."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidArgument(f"cannot join {name} namespace {path}: {reason(error)}") from error


def enter(opened: Mapping[str, int], *without: str, later: bool = False) -> dict[str, int]:
    """Join namespaces that `open_joined` opened. What is left: with `later` those that the caller may not enter as what it
    is now (they need the privileges that it has in the user namespace that it is going to be in).

    Errors: InvalidArgument naming the namespace.
    """
    refused: dict[str, int] = {}
    for name, fd in opened.items():
        if name in without:
            continue
        try:
            setns(fd, FLAGS[name])
        except OSError as error:
            if not later or error.errno != errno.EPERM:
                raise InvalidArgument(f"cannot join {name} namespace: {reason(error)}") from error
            refused[name] = fd
    return refused


def become_root_inside() -> None:
    """Be user and group 0 of the user namespace just entered. Errors: InvalidArgument (they are not mapped)."""
    try:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    except OSError as error:
        raise InvalidArgument(f"the user namespace maps no user and group 0: {reason(error)}") from error


def check_maps(uid_map: str, gid_map: str) -> None:
    """A user namespace joined by path has its maps; what the configuration says of them besides has to be the same.

    Errors: InvalidArgument.
    """
    for name, wanted in (("uid_map", uid_map), ("gid_map", gid_map)):
        with open(f"/proc/self/{name}", encoding="ascii") as file:
            found = sorted(line.split() for line in file)
        if wanted and sorted(line.split() for line in wanted.splitlines()) != found:
            raise InvalidArgument(
                f"linux.{name[:3]}Mappings differ from those of the user namespace that is joined by path"
            )


def enter_time() -> None:
    """Move from the old time namespace into the one that unshare(2) made for children, whose clocks can be set no more."""
    fd = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd, CLONE_NEWTIME)
    finally:
        os.close(fd)


def loopback_up() -> None:
    """A new network namespace has its loopback interface, but down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack_from("h", ioctl(control, SIOCGIFFLAGS, request), 16)[0]
        ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def id_map(entries: Sequence[Mapping[str, Any]], what: str) -> str:
    """The text of /proc/<pid>/uid_map and gid_map (user_namespaces(7)). `what`: the field, for messages.

    Errors: InvalidArgument.
    """
    lines = []
    for entry in entries:
        try:
            numbers = [int(entry[key]) for key in ("containerID", "hostID", "size")]
        except (KeyError, TypeError, ValueError):
            raise InvalidArgument(f"{what} wants containerID, hostID and size in each entry") from None
        if min(numbers) < 0 or max(numbers) >= 1 << 32 or numbers[2] == 0:
            raise InvalidArgument(f"{what}: {numbers} is outside of what ids can be")
        lines.append("{} {} {}\n".format(*numbers))
    return "".join(lines)


def outside(text: str, number: int) -> int:
    """Whom an id of a map's text is on the host; the id itself where the map does not have it, or there is none."""
    for line in text.splitlines():
        first, host, size = map(int, line.split())
        if first <= number < first + size:
            return host + number - first
    return number


def time_offsets(offsets: Mapping[str, Any]) -> str:
    """The text of /proc/<pid>/timens_offsets (time_namespaces(7)). Errors: InvalidArgument."""
    lines = []
    for clock, offset in offsets.items():
        if clock not in ("monotonic", "boottime"):
            raise InvalidArgument(f'linux.timeOffsets: clock "{clock}" has no offset; monotonic and boottime have')
        seconds, nanoseconds = int(offset.get("secs") or 0), int(offset.get("nanosecs") or 0)
        if not 0 <= nanoseconds < 1_000_000_000:
            raise InvalidArgument(f"linux.timeOffsets: {clock} has {nanoseconds} nanoseconds, which is no part of a second")
        lines.append(f"{clock} {seconds} {nanoseconds}\n")
    return "".join(lines)
