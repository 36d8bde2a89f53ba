"""The driver `native`: the house's shim with an engine of system calls."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from wharfie.shim import cgroups
from wharfie.shim.checkpointing import CheckpointingShims
from wharfie.spi.driver import Problem
from wharfie_runtime_native import features
from wharfie_runtime_native.engine import CACHE_OPTION
from wharfie_runtime_native.syscalls import MACHINES

_KERNEL: Final = (5, 12)  # mount_setattr(2); openat2, the new mount calls and close_range are older


class NativeDriver(CheckpointingShims):
    """Containers by Linux system calls, one shim each. It takes no settings."""

    name: ClassVar[str] = "native"
    spi: ClassVar[str] = "1.0"
    engine: ClassVar[str] = "wharfie_runtime_native.engine:NativeEngine"

    def engine_options(self) -> Mapping[str, Any]:
        return {CACHE_OPTION: str(self.context.state)}

    def check(self) -> Sequence[Problem]:
        problems = list(super().check())
        kernel, machine = self.context.host.kernel, os.uname().machine
        if kernel < _KERNEL:
            problems.append(
                Problem(
                    what=f"Linux {kernel[0]}.{kernel[1]} lacks mount_setattr(2)",
                    fix=f"use Linux {_KERNEL[0]}.{_KERNEL[1]} or later, or another runtime",
                )
            )
        if machine not in MACHINES:
            problems.append(
                Problem(
                    what=f"system call numbers for {machine} are not in this driver",
                    fix=f"use a machine of {' or '.join(MACHINES)}, or another runtime",
                )
            )
        if not cgroups.mounted():
            problems.append(Problem(what="no control groups are mounted at /sys/fs/cgroup", fix="mount a cgroup2 there"))
        return problems

    def open(self) -> None:
        self.context.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        super().open()

    def close(self) -> None:
        super().close()
        cgroups.prune(cgroups.DEFAULT_PARENT)

    def status(self) -> Sequence[tuple[str, str]]:
        return (("Cgroup Version", cgroups.version().removeprefix("v")),)

    def features(self) -> Mapping[str, Any]:
        return features.features()
