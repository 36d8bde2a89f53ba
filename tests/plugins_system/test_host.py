"""Host facts, from the kernel's own texts."""

from __future__ import annotations

import os

import pytest

from wharfie.engine.host import OCI_ARCHITECTURES, cgroup_layout, host_facts, kernel_version, memory_bytes
from wharfie.spi.errors import Unavailable

V1 = "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\ncgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n"
TREE = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"


@pytest.mark.parametrize(
    ("mounts", "layout"),
    [
        ("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n", "v2"),
        (V1, "v1"),
        ("tmpfs /sys/fs/cgroup tmpfs rw 0 0\n" + V1 + TREE, "hybrid"),
        (TREE, "v2"),
    ],
)
def test_cgroup_layouts(mounts: str, layout: str):
    assert cgroup_layout("proc /proc proc rw 0 0\n" + mounts) == layout


def test_a_host_without_control_groups_is_told_how_to_get_them():
    with pytest.raises(Unavailable, match="mount -t cgroup2"):
        cgroup_layout("proc /proc proc rw 0 0\n")


@pytest.mark.parametrize(
    ("release", "version"), [("6.1.0-18-amd64", (6, 1)), ("5.15", (5, 15)), ("6.18.44-fc-v669", (6, 18)), ("odd", (0, 0))]
)
def test_kernel_versions(release: str, version: tuple[int, int]):
    assert kernel_version(release) == version


def test_memory_is_in_bytes():
    assert memory_bytes("MemFree:  1 kB\nMemTotal:        2048 kB\n") == 2048 * 1024


def test_this_host():
    facts = host_facts()
    assert facts.kernel >= (3, 0)
    assert facts.architecture == OCI_ARCHITECTURES.get(os.uname().machine, os.uname().machine)
    assert facts.cpus == len(os.sched_getaffinity(0)) and facts.memory == os.sysconf("SC_PAGE_SIZE") * os.sysconf(
        "SC_PHYS_PAGES"
    )
