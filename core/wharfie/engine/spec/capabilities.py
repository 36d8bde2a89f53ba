"""Linux capabilities (capabilities(7)): Docker's default set, and what --cap-add and --cap-drop make of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wharfie.spi.errors import InvalidArgument

# In the kernel's order (include/uapi/linux/capability.h): the index is the bit.
ALL = tuple(
    f"CAP_{name}"
    for name in [
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON",
        "BPF",
        "CHECKPOINT_RESTORE",
    ]
)
DEFAULT = tuple(
    f"CAP_{name}"
    for name in [
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ]
)


def held_by_daemon() -> tuple[str, ...]:
    """What this process may hand on: its bounding set."""
    status = Path("/proc/self/status").read_text()
    bits = int(next(line for line in status.splitlines() if line.startswith("CapBnd")).split()[1], 16)
    return tuple(name for bit, name in enumerate(ALL) if bits >> bit & 1)


def effective(add: Sequence[str], drop: Sequence[str], *, privileged: bool) -> tuple[str, ...]:
    """The container's set. Errors: InvalidArgument (unknown name)."""
    added, dropped = _normalise("CapAdd", add), _normalise("CapDrop", drop)
    if privileged:
        return held_by_daemon()
    kept = () if "ALL" in dropped else tuple(name for name in DEFAULT if name not in dropped)
    if "ALL" in added:
        kept = tuple(name for name in held_by_daemon() if name not in dropped)
    return kept + tuple(name for name in added if name != "ALL" and name not in kept)


def _normalise(field: str, names: Sequence[str]) -> list[str]:
    result = []
    for name in names:
        upper = name.upper()
        if upper != "ALL" and not upper.startswith("CAP_"):
            upper = f"CAP_{upper}"
        if upper != "ALL" and upper not in ALL:
            raise InvalidArgument(f'invalid {field}: unknown capability: "{upper}"')
        result.append(upper)
    return result
