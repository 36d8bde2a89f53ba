"""Kernel settings of networking: /proc/sys/net of the calling thread's network namespace."""

from __future__ import annotations

from pathlib import Path

_NET = Path("/proc/sys/net")


def read(*names: str) -> str | None:
    """The value of net.<names>; None: this kernel has no such setting (IPv6 may be missing altogether)."""
    try:
        return _NET.joinpath(*names).read_text().strip()
    except FileNotFoundError:
        return None


def write(value: str, *names: str) -> None:
    """Set net.<names>, unless it has the value or does not exist: a read-only /proc/sys that is right is enough.

    Errors: OSError.
    """
    if read(*names) not in (value, None):
        _NET.joinpath(*names).write_text(value)


def interfaces(family: str) -> list[str]:
    """The interfaces that have settings below net.<family>.conf."""
    try:
        return [path.name for path in (_NET / family / "conf").iterdir() if path.name not in ("all", "default")]
    except FileNotFoundError:
        return []
