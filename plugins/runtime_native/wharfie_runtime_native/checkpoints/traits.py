"""What of a container is from outside, and what no checkpoint can hold."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from wharfie.spi.errors import Unsupported
from wharfie_runtime_native.namespaces import parse as parse_namespaces
from wharfie_runtime_native.plan import INIT_ANNOTATION

NETWORK: Final = "network"
"""The key of the network namespace."""
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


def has_own(name: str, spec: Mapping[str, Any]) -> bool:
    """Whether its namespace of this type is another than the host's."""
    return parse_namespaces((spec.get("linux") or {}).get("namespaces") or ()).own(name)


def stream(pid: int, fd: int) -> str:
    """How criu calls what a process has open: a pipe, or a file that is not in the container."""
    path = Path(f"/proc/{pid}/fd/{fd}")
    link = str(path.readlink())
    if link.startswith("pipe:"):
        return link
    found = re.search(r"^mnt_id:\s*(\d+)", Path(f"/proc/{pid}/fdinfo/{fd}").read_text(), re.MULTILINE)
    return f"file[{int(found[1] if found else 0):x}:{path.stat().st_ino:x}]"


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
