"""What the kit leaves behind: nothing, in no hierarchy."""

from __future__ import annotations

import os
from pathlib import Path

from wharfie.kit import RuntimeContract
from wharfie.shim.cgroups import roots


class Contract(RuntimeContract):
    PARENT = f"wharfie-test-tidy-{os.getpid()}"


def test_the_groups_of_a_runtime_go_from_every_hierarchy() -> None:
    """runc makes groups in the bare cgroup2 of a hybrid host too, where no controller is."""
    parents = [Path(root, Contract.PARENT) for root in roots()]
    try:
        for parent in parents:
            (parent / "box").mkdir(parents=True)
        Contract.tidy()
        assert not [parent for parent in parents if parent.exists()]
    finally:
        for parent in parents:
            for folder in (parent / "box", parent):
                if folder.exists():
                    folder.rmdir()
