"""Control groups, version 2: one tree (kernel, Documentation/admin-guide/cgroup-v2.rst)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from wharfie.shim.cgroups import V2Reader, flat, read, read_int, write
from wharfie.spi.errors import DriverError, InvalidArgument
from wharfie_runtime_native.cgroups import device_program, device_rules
from wharfie_runtime_native.cgroups.base import Cgroup, make

_FREEZE_SECONDS: Final = 10.0
_DEFAULT_PERIOD: Final = 100000

# linux.resources.blockIO → key of io.max
_THROTTLES: Final = {
    "throttleReadBpsDevice": "rbps",
    "throttleWriteBpsDevice": "wbps",
    "throttleReadIOPSDevice": "riops",
    "throttleWriteIOPSDevice": "wiops",
}


class CgroupV2(V2Reader, Cgroup):
    """One folder in the unified tree."""

    def create(self) -> None:
        parent = self._root
        for part in self.path.split("/")[:-1]:
            self._delegate(parent)
            parent = f"{parent}/{part}"
            Path(parent).mkdir(mode=0o755, exist_ok=True)
        self._delegate(parent)
        make(self._directory)

    def _delegate(self, parent: str) -> None:
        """Let groups below `parent` have every controller that it has itself."""
        enabled = read(parent, "cgroup.subtree_control").split()
        for controller in read(parent, "cgroup.controllers").split():
            if controller not in enabled:
                try:
                    write(parent, "cgroup.subtree_control", f"+{controller}")
                except InvalidArgument:  # e.g. cpu with real-time processes in the root: the limit itself will say so
                    continue

    def apply(self, resources: Mapping[str, Any]) -> None:
        if "devices" in resources:
            device_program.attach(self._directory, device_rules.effective(resources["devices"] or ()))
        self._apply_memory(resources.get("memory") or {})
        self._apply_cpu(resources.get("cpu") or {})
        if limit := (resources.get("pids") or {}).get("limit"):
            write(self._directory, "pids.max", str(limit) if limit > 0 else "max")
        self._apply_block_io(resources.get("blockIO") or {})
        for entry in resources.get("hugepageLimits") or ():
            write(self._directory, f"hugetlb.{entry['pageSize']}.max", str(entry["limit"]))
        for name, value in (resources.get("unified") or {}).items():
            if "/" in name:
                raise InvalidArgument(f'linux.resources.unified: "{name}" is not the name of a control file')
            write(self._directory, name, str(value))

    def _apply_memory(self, memory: Mapping[str, Any]) -> None:
        limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
        if swap:
            # OCI counts memory and swap together, as version 1 does; version 2 counts swap alone.
            if swap > 0 and limit <= 0:
                limit = limit or read_int(self._directory, "memory.max")
            if swap > 0 and swap < limit:
                raise InvalidArgument(f"memory+swap limit {swap} is below the memory limit {limit}")
            write(self._directory, "memory.swap.max", "max" if swap == -1 else str(swap - limit))
        if memory.get("limit"):
            write(self._directory, "memory.max", "max" if limit == -1 else str(limit))
        if reservation := memory.get("reservation"):
            write(self._directory, "memory.low", "max" if reservation == -1 else str(reservation))

    def _apply_cpu(self, cpu: Mapping[str, Any]) -> None:
        if shares := cpu.get("shares"):
            # 2 … 262144 onto 1 … 10000, the mapping that container runtimes agreed on (Kubernetes KEP-2254)
            write(self._directory, "cpu.weight", str(1 + (max(shares, 2) - 2) * 9999 // 262142))
        if cpu.get("quota") or cpu.get("period"):
            quota, period = cpu.get("quota") or 0, cpu.get("period") or 0
            old = (read(self._directory, "cpu.max").split() or ["max"])[0]
            amount = str(quota) if quota > 0 else "max" if quota < 0 else old
            write(self._directory, "cpu.max", f"{amount} {period or _DEFAULT_PERIOD}")
        for key, name in (("burst", "cpu.max.burst"), ("idle", "cpu.idle")):
            if cpu.get(key) is not None:
                write(self._directory, name, str(cpu[key]))
        for key in ("cpus", "mems"):
            if cpu.get(key):
                write(self._directory, f"cpuset.{key}", str(cpu[key]))

    def _apply_block_io(self, block_io: Mapping[str, Any]) -> None:
        name = "io.bfq.weight" if Path(self._directory, "io.bfq.weight").exists() else "io.weight"
        if weight := block_io.get("weight"):
            write(self._directory, name, str(weight))
        for entry in block_io.get("weightDevice") or ():
            write(self._directory, name, f"{entry['major']}:{entry['minor']} {entry['weight']}")
        for key, word in _THROTTLES.items():
            for entry in block_io.get(key) or ():
                write(self._directory, "io.max", f"{entry['major']}:{entry['minor']} {word}={entry['rate']}")

    def join(self) -> None:
        write(self._directory, "cgroup.procs", "0")

    def freeze(self) -> None:
        write(self._directory, "cgroup.freeze", "1")
        end = time.monotonic() + _FREEZE_SECONDS
        while flat(read(self._directory, "cgroup.events")).get("frozen") != 1:
            if time.monotonic() > end:
                write(self._directory, "cgroup.freeze", "0")
                raise DriverError(f"{self._directory} does not freeze within {_FREEZE_SECONDS:.0f} s")
            time.sleep(0.001)

    def thaw(self) -> None:
        write(self._directory, "cgroup.freeze", "0")

    def kill(self) -> None:
        if Path(self._directory).exists():
            write(self._directory, "cgroup.kill", "1")
