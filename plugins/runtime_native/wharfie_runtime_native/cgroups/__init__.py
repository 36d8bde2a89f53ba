"""Control groups of versions 1 and 2, written: made, limited, frozen, removed (`base.Cgroup`)."""

from __future__ import annotations

from wharfie.shim.cgroups import version
from wharfie_runtime_native.cgroups.base import Cgroup


def open_cgroup(path: str) -> Cgroup:
    """The control group of `linux.cgroupsPath`; nothing is made yet. Errors: InvalidArgument (the path)."""
    return _kind()(path)


def warm() -> None:
    """Load the version that this host has; the zygote does it, so that no shim spends time or memory on it."""
    _kind()


def _kind() -> type[Cgroup]:
    # Hosts have one of them, and a command that is started anew each time need not load the other.
    if version() == "v2":
        from wharfie_runtime_native.cgroups.v2 import CgroupV2

        return CgroupV2
    from wharfie_runtime_native.cgroups.v1 import CgroupV1

    return CgroupV1
