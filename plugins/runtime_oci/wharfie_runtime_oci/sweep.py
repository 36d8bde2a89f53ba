"""The end of a control group that its binary did not live to remove."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Final

from wharfie.shim.cgroups import GroupReader, below, roots, tree_pids
from wharfie.spi.errors import DriverError

_SECONDS: Final = 10.0  # processes that were killed leave their group only when the kernel is through with them
_PAUSE: Final = 0.005


def sweep(group: GroupReader) -> None:
    """End the group's processes, and remove it in every hierarchy, also in the bare cgroup2 of a hybrid host. Succeeds when
    it is not there. Errors: DriverError (processes that cannot end, as in uninterruptible sleep)."""
    folders = {f"{root}/{group.path}" for root in roots()}
    end = time.monotonic() + _SECONDS
    while folders := {folder for folder in folders if not _removed(folder)}:
        if time.monotonic() > end:
            raise DriverError(f"cgroup {min(folders)} cannot be removed: processes {tree_pids(min(folders))} do not end")
        time.sleep(_PAUSE)


def _removed(folder: str) -> bool:
    if not Path(folder).exists():
        return True
    for pid in tree_pids(folder):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    try:
        for group in below(folder):
            os.rmdir(group)  # noqa: PTH106  # a path object would cost each shim its memory
    except OSError:
        return False
    return True
