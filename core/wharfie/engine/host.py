"""What the host is: found out once at start, handed to every driver in its `Context`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from wharfie.spi.driver import HostFacts
from wharfie.spi.errors import Unavailable

OCI_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv6l": "arm",
    "armv7l": "arm",
    "armv8l": "arm",
    "i386": "386",
    "i686": "386",
    "loongarch64": "loong64",
    "mips64": "mips64",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
}
"""The kernel's word for a machine → the OCI image specification's (Go's GOARCH)."""

CGROUP_ROOT = "/sys/fs/cgroup"


def host_facts(proc: Path = Path("/proc")) -> HostFacts:
    """The facts of this host. Errors: Unavailable when there are no control groups."""
    name = os.uname()
    return HostFacts(
        kernel=kernel_version(name.release),
        architecture=OCI_ARCHITECTURES.get(name.machine, name.machine),
        cgroup=cgroup_layout((proc / "self/mounts").read_text()),
        cpus=len(os.sched_getaffinity(0)),
        memory=memory_bytes((proc / "meminfo").read_text()),
    )


def kernel_version(release: str) -> tuple[int, int]:
    """ "6.1.0-18-amd64" → (6, 1)."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def cgroup_layout(mounts: str) -> Literal["v1", "v2", "hybrid"]:
    """From the text of /proc/self/mounts: v2 when the root itself is cgroup2, hybrid when v1 controllers have a cgroup2
    tree beside them, v1 otherwise."""
    kinds = {}
    for line in mounts.splitlines():
        _, target, kind, *_ = line.split(" ")
        if kind in ("cgroup", "cgroup2"):
            kinds[target] = kind
    if not kinds:
        raise Unavailable(f"no control groups are mounted on this host; mount them: mount -t cgroup2 none {CGROUP_ROOT}")
    if kinds.get(CGROUP_ROOT) == "cgroup2" or "cgroup" not in kinds.values():
        return "v2"
    return "hybrid" if "cgroup2" in kinds.values() else "v1"


def memory_bytes(meminfo: str) -> int:
    """MemTotal in bytes."""
    found = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
