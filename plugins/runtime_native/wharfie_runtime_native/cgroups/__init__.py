"""Control groups of versions 1 and 2, written: made, limited, frozen, removed (`base.Cgroup`)."""

from __future__ import annotations

from wharfie.shim.cgroups import version
from wharfie_runtime_native.cgroups import v1, v2
from wharfie_runtime_native.cgroups.base import Cgroup


def open_cgroup(path: str) -> Cgroup:
    """The control group of `linux.cgroupsPath`; nothing is made yet. Errors: InvalidArgument (the path)."""
    return v2.CgroupV2(path) if version() == "v2" else v1.CgroupV1(path)
