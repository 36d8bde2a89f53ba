"""The daemon's half of checkpoints: what a driver derives from whose engine writes and restores them."""

from __future__ import annotations

from pathlib import Path

from wharfie.shim.driver import ShimRuntime
from wharfie.spi.runtime import Process, RuntimeCapability

_LONG = 595.0
"""Seconds; a little less than the contract's deadline."""


class CheckpointingShims(ShimRuntime):
    """ShimRuntime with CHECKPOINT, for engines that have `checkpoint` and `restore`."""

    def capabilities(self) -> frozenset[RuntimeCapability]:
        # What the engine needs may be installed, or a better one, while the daemon runs: whether it works is found out when
        # it is needed.
        return super().capabilities() | {RuntimeCapability.CHECKPOINT}

    def checkpoint(self, id: str, folder: Path, *, leave_running: bool = False) -> None:
        self._get(id).call("checkpoint", _LONG, folder=str(folder), leave_running=leave_running)

    def restore(self, id: str, folder: Path) -> Process:
        pid = int(self._get(id).call("restore", _LONG, folder=str(folder))["pid"])
        return Process(pid=pid, netns=Path(f"/proc/{pid}/ns/net"))
