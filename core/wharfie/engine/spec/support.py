"""Limits that this kernel has not got: taken out of a request, each with Docker's warning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wharfie.engine.model.host import HostConfig
from wharfie.spi.driver import HostFacts

_ROOT = Path("/sys/fs/cgroup")
_NO = "Your kernel does not support "


@dataclass(frozen=True, slots=True)
class _Limit:
    """`files`: of the first version of cgroups, one of which shows that the kernel has it. The second version has it when
    `unified` says so; there the files exist below the root only."""

    field: str
    empty: object
    files: tuple[str, ...]
    unified: bool
    warning: str
    unset: tuple[object, ...] = (None, 0, [])
    """What clients send, or leave out, for "as it is"."""


_LIMITS = (
    _Limit(
        "blkio_weight",
        0,
        ("blkio/blkio.weight", "blkio/blkio.bfq.weight"),
        True,
        f"{_NO}Block I/O weight or the cgroup is not mounted. Weight discarded.",
    ),
    _Limit(
        "blkio_weight_device",
        None,
        ("blkio/blkio.weight_device", "blkio/blkio.bfq.weight_device"),
        True,
        f"{_NO}Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.",
    ),
    _Limit(
        "memory_swappiness",
        None,
        ("memory/memory.swappiness",),
        False,
        f"{_NO}memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
        unset=(None, -1),
    ),
    _Limit(
        "oom_kill_disable",
        False,
        ("memory/memory.oom_control",),
        False,
        f"{_NO}OomKillDisable. OomKillDisable discarded.",
    ),
)


def discard(host: HostConfig, facts: HostFacts, exists: Callable[[Path], bool] = Path.exists) -> list[str]:
    """Empty what cannot be honoured; the warnings for the answer. `exists` looks at the control groups' files."""
    warnings = []
    for limit in _LIMITS:
        if getattr(host, limit.field) in limit.unset:
            continue
        here = limit.unified if facts.cgroup == "v2" else any(exists(_ROOT / file) for file in limit.files)
        if not here:
            setattr(host, limit.field, limit.empty)
            warnings.append(limit.warning)
    if host.oom_kill_disable and not host.memory:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running "
            "out of resources."
        )
    return warnings
