"""What of a container is from outside, and what no checkpoint can hold."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from wharfie.spi.errors import Unsupported
from wharfie_runtime_native.checkpoints import criu
from wharfie_runtime_native.namespaces import parse as parse_namespaces
from wharfie_runtime_native.plan import INIT_ANNOTATION

_NOTES_PRIVILEGES: Final = 4
NETWORK: Final = "network"
"""The key of the network namespace."""
_GIVEN: Final = 3
"""Descriptors that a first process is given."""
_OWN_KINDS: Final = frozenset({"proc", "sysfs", "tmpfs", "devpts", "mqueue"})
"""File systems of which a container has instances of its own, which criu makes again with what is in them."""


def check(spec: Mapping[str, Any]) -> None:
    """Errors: Unsupported, naming what stands in the way."""
    spaces = parse_namespaces((spec.get("linux") or {}).get("namespaces") or ())
    reasons = {
        "it has a terminal": bool((spec.get("process") or {}).get("terminal")),
        "it has an init of the daemon's (--init)": (spec.get("annotations") or {}).get(INIT_ANNOTATION) == "true",
        "it has a user namespace (userns-remap)": spaces.own("user"),
        "its PID namespace is not its own": "pid" not in spaces.new,
        "its IPC namespace is another container's": "ipc" in spaces.joined,
        "its UTS namespace is another container's": "uts" in spaces.joined,
        "its mount namespace is not its own": "mount" not in spaces.new,
    }
    for reason, holds in reasons.items():
        if holds:
            raise Unsupported(f"this container cannot be checkpointed or restored: {reason}")


def check_privileges(spec: Mapping[str, Any], pids: Sequence[int], program: str) -> None:
    """Refuse what would be given back to a process that has given it up: criu, before version 4, does not note
    no_new_privs (prctl(2)). For a whole container it is taken care of. Errors: Unsupported."""
    if (spec.get("process") or {}).get("noNewPrivileges"):
        return
    for pid in pids:
        for status in Path(f"/proc/{pid}/task").glob("*/status"):
            if "NoNewPrivs:\t1\n" not in status.read_text():
                continue
            version = criu.version(program)
            if not version[0].isdecimal() or int(version.partition(".")[0]) < _NOTES_PRIVILEGES:
                raise Unsupported(
                    f"process {pid} of the container has set no_new_privs for itself, which criu {version} does not note: "
                    f"it would be lost. criu {_NOTES_PRIVILEGES} notes it"
                )
            return


def has_own(name: str, spec: Mapping[str, Any]) -> bool:
    """Whether its namespace of this type is another than the host's."""
    return parse_namespaces((spec.get("linux") or {}).get("namespaces") or ()).own(name)


def streams(pid: int, pids: Sequence[int], pipes: Mapping[int, int]) -> dict[str, int]:
    """What processes have open that is from outside, as criu calls it: the shim's pipes, and files that are not in the
    container, such as the host's null device. The values are numbers of the descriptors that the first process, `pid`, was
    given for them."""
    found = {}
    names = {f"pipe:[{inode}]": number for number, inode in pipes.items()}
    mounts = {line.split(None, 1)[0] for line in _mounts(pid)}
    inside = Path(f"/proc/{pid}/ns/mnt").readlink()
    for one in pids:
        own_mounts = Path(f"/proc/{one}/ns/mnt").readlink() != inside
        for entry in Path(f"/proc/{one}/fd").iterdir():
            link, number = str(entry.readlink()), int(entry.name)
            if link in names:
                found[link] = names[link]
            elif link.startswith("/") and not own_mounts:
                mount = _mount_id(one, number)
                if mount not in mounts:
                    found.setdefault(f"file[{int(mount):x}:{entry.stat().st_ino:x}]", number if number < _GIVEN else 0)
    return found


def _mount_id(pid: int, fd: int) -> str:
    text = Path(f"/proc/{pid}/fdinfo/{fd}").read_text()
    return text.partition("mnt_id:")[2].split(None, 1)[0]


def outer_mounts(pid: int) -> Sequence[str]:
    """Mount points of what is not the container's alone: criu is given it, and leaves its content alone."""
    # A file system that is mounted in this namespace too is the host's, or somebody else's.
    here = {line.split()[2] for line in _mounts("self")}
    points = []
    for line in _mounts(pid):
        words = line.split()
        point, kind = _decoded(words[4]), words[words.index("-") + 1]
        if point != "/" and (kind not in _OWN_KINDS or words[2] in here):
            points.append(point)
    return points


def _mounts(pid: int | str) -> Sequence[str]:
    return Path(f"/proc/{pid}/mountinfo").read_text("utf-8", "surrogateescape").splitlines()


def _decoded(text: str) -> str:
    """Blanks and the like are octal there (proc_pid_mountinfo(5))."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
