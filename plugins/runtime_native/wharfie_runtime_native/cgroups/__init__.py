"""Control groups of versions 1 and 2 behind `base.Cgroup`.

A host has one of three layouts: *v2* (/sys/fs/cgroup is a cgroup2), *v1* (a tmpfs with a folder for each hierarchy), or
*hybrid* (v1 with a cgroup2 at `unified`, which then has no controllers worth using). On a hybrid host version 1 is used.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from wharfie_runtime_native.cgroups import v1, v2
from wharfie_runtime_native.cgroups.base import ROOT, Cgroup
from wharfie_runtime_native.constants import CGROUP2_SUPER_MAGIC
from wharfie_runtime_native.syscalls import statfs_type


@cache
def version() -> Literal["v1", "v2"]:
    """Which version's interface this host's controllers have."""
    return "v2" if statfs_type(ROOT) == CGROUP2_SUPER_MAGIC else "v1"


def open_cgroup(path: str) -> Cgroup:
    """The control group of `linux.cgroupsPath`; nothing is made yet. Errors: InvalidArgument (the path)."""
    return v2.CgroupV2(path) if version() == "v2" else v1.CgroupV1(path)


def warm() -> None:
    """Find out what there is to know of this host."""
    if version() == "v1":
        v1.hierarchies()


def mounted() -> bool:
    """Whether this host has control groups at all."""
    return version() == "v2" or bool(v1.hierarchies())


def prune(parent: str) -> None:
    """Remove a parent group, wherever nothing is left in it."""
    roots = [ROOT] if version() == "v2" else list(v1.hierarchies().values())
    for root in dict.fromkeys(roots):
        try:
            Path(root, parent).rmdir()
        except OSError:  # in use by another daemon's containers, or not there
            continue
