"""Control groups, version 1: a hierarchy for each controller or few (kernel, Documentation/admin-guide/cgroup-v1)."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, Final

from wharfie.shim.cgroups import V1Reader, read, read_int, write
from wharfie.spi.errors import DriverError, InvalidArgument
from wharfie_runtime_native.cgroups import device_rules
from wharfie_runtime_native.cgroups.base import Cgroup, make, rdma_line

_FREEZE_SECONDS: Final = 10.0
_KILL_SECONDS: Final = 0.2

# linux.resources.blockIO → control file; the values are {major, minor, rate}
_THROTTLES: Final = {
    "throttleReadBpsDevice": "blkio.throttle.read_bps_device",
    "throttleWriteBpsDevice": "blkio.throttle.write_bps_device",
    "throttleReadIOPSDevice": "blkio.throttle.read_iops_device",
    "throttleWriteIOPSDevice": "blkio.throttle.write_iops_device",
}
_MEMORY: Final = {
    "limit": "memory.limit_in_bytes",
    "swap": "memory.memsw.limit_in_bytes",
    "reservation": "memory.soft_limit_in_bytes",
    "disableOOMKiller": "memory.oom_control",
}
_CPU: Final = {
    "shares": "cpu.shares",
    "burst": "cpu.cfs_burst_us",
    "idle": "cpu.idle",
    "realtimePeriod": "cpu.rt_period_us",
    "realtimeRuntime": "cpu.rt_runtime_us",
}


class CgroupV1(V1Reader, Cgroup):
    """The group of the same path in every hierarchy."""

    def create(self) -> None:
        for name, directory in self._directories.items():
            make(directory)
            if "cpuset" in name.split(","):
                self._inherit_cpuset(directory)

    def _inherit_cpuset(self, directory: str) -> None:
        """A new cpuset has no CPU and no memory node, and nothing can be moved into it: fill in the parents'."""
        root = directory.removesuffix(self.path)
        above = root
        for part in self.path.split("/"):
            folder = f"{above}/{part}"
            for file in ("cpuset.cpus", "cpuset.mems"):
                if not read(folder, file).strip():
                    write(folder, file, read(above, file).strip())
            above = folder

    def _directory(self, controller: str, what: str) -> str:
        """Errors: InvalidArgument (this host lacks the controller)."""
        directory = self._controllers.get(controller)
        if directory is None:
            raise InvalidArgument(f'cannot set {what}: this host has no cgroup controller "{controller}" mounted')
        return directory

    def apply(self, resources: Mapping[str, Any]) -> None:
        if resources.get("unified"):
            raise InvalidArgument("linux.resources.unified needs cgroup v2; this host's controllers are version 1")
        if "devices" in resources:
            directory = self._directory("devices", "device rules")
            for rule in device_rules.effective(resources["devices"] or ()):
                write(directory, "devices.allow" if rule.allow else "devices.deny", rule.v1())
        self._apply_memory(resources.get("memory") or {})
        self._apply_cpu(resources.get("cpu") or {})
        if limit := (resources.get("pids") or {}).get("limit"):
            write(self._directory("pids", "a pids limit"), "pids.max", str(limit) if limit > 0 else "max")
        self._apply_block_io(resources.get("blockIO") or {})
        for entry in resources.get("hugepageLimits") or ():
            name = f"hugetlb.{entry['pageSize']}.limit_in_bytes"
            write(self._directory("hugetlb", "a huge page limit"), name, str(entry["limit"]))
        for device, limits in (resources.get("rdma") or {}).items():
            write(self._directory("rdma", "an RDMA limit"), "rdma.max", rdma_line(device, limits))
        self._apply_network(resources.get("network") or {})

    def _apply_memory(self, memory: Mapping[str, Any]) -> None:
        given: dict[str, int] = {}
        for key, name in _MEMORY.items():
            if memory.get(key):
                given[name] = int(memory[key])
        if memory.get("swappiness") is not None:
            given["memory.swappiness"] = int(memory["swappiness"])
        if not given:
            return
        directory = self._directory("memory", "a memory limit")
        swap = given.get("memory.memsw.limit_in_bytes")
        # The kernel wants limit <= memsw at every moment: whichever moves away from the other goes first.
        if swap is not None and (swap == -1 or swap > read_int(directory, "memory.memsw.limit_in_bytes")):
            write(directory, "memory.memsw.limit_in_bytes", str(swap))
            del given["memory.memsw.limit_in_bytes"]
        for name, value in given.items():
            write(directory, name, str(value))

    def _apply_cpu(self, cpu: Mapping[str, Any]) -> None:
        for key, name in _CPU.items():
            if (value := cpu.get(key)) is not None and (value or key in ("idle", "burst")):
                write(self._directory("cpu", f"cpu {key}"), name, str(value))
        quota, period = cpu.get("quota") or 0, cpu.get("period") or 0
        if quota or period:
            directory = self._directory("cpu", "a cpu quota")
            steps = [("cpu.cfs_period_us", period), ("cpu.cfs_quota_us", quota)]
            # A period that does not fit the old quota is refused; then the quota has to go first.
            if (
                quota
                and period
                and quota * read_int(directory, "cpu.cfs_period_us") < period * read_int(directory, "cpu.cfs_quota_us")
            ):
                steps.reverse()
            for name, value in steps:
                if value:
                    write(directory, name, str(value))
        for key in ("cpus", "mems"):
            if value := cpu.get(key):
                write(self._directory("cpuset", f"cpuset {key}"), f"cpuset.{key}", str(value))

    def _apply_block_io(self, block_io: Mapping[str, Any]) -> None:
        weight = block_io.get("weight")
        if weight or block_io.get("weightDevice"):
            directory = self._directory("blkio", "a block I/O weight")
            name = "blkio.weight" if os.path.exists(f"{directory}/blkio.weight") else "blkio.bfq.weight"
            if weight:
                write(directory, name, str(weight))
            for entry in block_io.get("weightDevice") or ():
                write(directory, f"{name}_device", f"{entry['major']}:{entry['minor']} {entry['weight']}")
        for key, name in _THROTTLES.items():
            for entry in block_io.get(key) or ():
                directory = self._directory("blkio", "a block I/O limit")
                write(directory, name, f"{entry['major']}:{entry['minor']} {entry['rate']}")

    def _apply_network(self, network: Mapping[str, Any]) -> None:
        if class_id := network.get("classID"):
            write(self._directory("net_cls", "a network class"), "net_cls.classid", str(class_id))
        for entry in network.get("priorities") or ():
            directory = self._directory("net_prio", "a network priority")
            write(directory, "net_prio.ifpriomap", f"{entry['name']} {entry['priority']}")

    def join(self, *, beside: int = -1) -> None:
        # "0" into `tasks`, not into `cgroup.procs`: a single thread that moves itself needs no look at its thread group,
        # and the kernel spares it the global lock whose RCU grace period costs 6 to 10 ms (measured: 0.3 ms for all
        # nine hierarchies). The caller is a freshly forked process with one thread.
        for directory in self._directories.values():
            write(directory, "tasks", "0")

    def freeze(self) -> None:
        directory = self.freezer()
        if not self._freeze(directory, _FREEZE_SECONDS):
            write(directory, "freezer.state", "THAWED")
            raise DriverError(f"{directory} does not freeze within {_FREEZE_SECONDS:.0f} s")

    def _freeze(self, directory: str, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while True:
            # A process that is being forked while the state changes is caught by saying it again (runc does the same).
            write(directory, "freezer.state", "FROZEN")
            if read(directory, "freezer.state").strip() == "FROZEN":
                return True
            if time.monotonic() > end:
                return False
            time.sleep(0.001)

    def freezer(self) -> str:
        return self._directory("freezer", "a pause")

    def thaw(self) -> None:
        write(self.freezer(), "freezer.state", "THAWED")

    def kill(self) -> None:
        freezer = self._controllers.get("freezer", "")
        frozen = os.path.exists(f"{freezer}/freezer.state")
        if frozen:
            # So that none forks while the others are killed; what does not freeze now is met the next time.
            self._freeze(freezer, _KILL_SECONDS)
        try:
            self.kill_each()
        finally:
            if frozen:
                self.thaw()
