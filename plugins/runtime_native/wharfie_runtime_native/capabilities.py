"""Capabilities of a process: five sets of bits (capabilities(7))."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from wharfie.shim.signals import status_mask
from wharfie.spi.errors import InvalidArgument
from wharfie_runtime_native.constants import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAP_AMBIENT_RAISE,
    PR_CAPBSET_DROP,
    PR_CAPBSET_READ,
)
from wharfie_runtime_native.syscalls import capset, prctl

# linux/capability.h, by number
NAMES: Final = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
_BITS: Final = {name: 1 << number for number, name in enumerate(NAMES)}
SYS_ADMIN: Final = _BITS["CAP_SYS_ADMIN"]


class Capabilities(NamedTuple):
    """The five sets as masks of bits."""

    bounding: int = 0
    effective: int = 0
    permitted: int = 0
    inheritable: int = 0
    ambient: int = 0


def parse(sets: Mapping[str, Sequence[str]]) -> Capabilities:
    """`process.capabilities`. Errors: InvalidArgument (a name that no Linux has)."""
    return Capabilities(**{name: _mask(sets.get(name) or ()) for name in Capabilities._fields})


def _mask(names: Sequence[str]) -> int:
    mask = 0
    for name in names:
        if name not in _BITS:
            raise InvalidArgument(f'capability "{name}" is unknown')
        mask |= _BITS[name]
    return mask


def held() -> int:
    """The permitted set of this process."""
    return status_mask("CapPrm")


def check(wanted: Capabilities, available: int) -> None:
    """Errors: InvalidArgument (a capability that the engine itself has not got and therefore cannot give)."""
    if missing := (wanted.permitted | wanted.effective | wanted.bounding | wanted.ambient) & ~available:
        names = ", ".join(name for name, bit in _BITS.items() if missing & bit)
        raise InvalidArgument(f"cannot give {names}: the engine does not hold it itself on this host")


def drop_bounding(wanted: Capabilities) -> None:
    """Take everything out of the bounding set that is not wanted in it. Needs CAP_SETPCAP; before the user changes."""
    number = 0
    while True:
        try:
            if prctl(PR_CAPBSET_READ, number) and not wanted.bounding >> number & 1:
                prctl(PR_CAPBSET_DROP, number)
        except OSError:  # EINVAL: past the last capability of this kernel
            if number < len(NAMES):
                raise
            return
        number += 1


def prepare(wanted: Capabilities, also: int) -> None:
    """Set inheritable and ambient, keeping `also` until `finish`. After the user has changed (with PR_SET_KEEPCAPS)."""
    capset(wanted.effective | also, wanted.permitted | also, wanted.inheritable)
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(len(NAMES)):
        if wanted.ambient >> number & 1:
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)


def finish(wanted: Capabilities) -> None:
    """The last step before execve."""
    capset(wanted.effective, wanted.permitted, wanted.inheritable)
