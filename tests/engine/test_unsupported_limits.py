"""Limits that a kernel has not got are discarded with Docker's warning; what nobody asked for is no reason to warn."""

from __future__ import annotations

import pytest

from wharfie.engine.model.host import HostConfig
from wharfie.engine.spec.support import discard
from wharfie.spi.driver import HostFacts


def facts(cgroup):
    return HostFacts(kernel=(6, 1), architecture="amd64", cgroup=cgroup, cpus=2, memory=1 << 30)


@pytest.mark.parametrize(
    ("field", "sent", "left", "warning"),
    [
        ("memory_swappiness", -1, -1, ""),  # the CLI's word for "not given"
        ("memory_swappiness", None, None, ""),
        ("memory_swappiness", 0, None, "Memory swappiness discarded."),
        ("memory_swappiness", 60, None, "Memory swappiness discarded."),
        ("oom_kill_disable", True, False, "OomKillDisable discarded."),
        ("oom_kill_disable", False, False, ""),
        ("blkio_weight", 300, 300, ""),  # version 2 has it, under another name
    ],
)
def test_version_2(field, sent, left, warning):
    host = HostConfig(**{field: sent})
    warnings = discard(host, facts("v2"))
    assert getattr(host, field) == left
    assert [line for line in warnings if not line.endswith(warning or "\n")] == []
    assert bool(warnings) == bool(warning)


def test_version_1_has_what_its_files_say():
    asked = HostConfig.model_validate({"MemorySwappiness": 0, "BlkioWeight": 300})
    assert discard(asked, facts("v1"), exists=lambda path: path.name == "memory.swappiness") == [
        "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
    ]
    assert (asked.memory_swappiness, asked.blkio_weight) == (0, 0)
