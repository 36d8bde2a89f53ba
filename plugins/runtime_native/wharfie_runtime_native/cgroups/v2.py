"""Control groups, version 2: one tree (kernel, Documentation/admin-guide/cgroup-v2.rst)."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping
from typing import Any, Final

from wharfie.shim.cgroups import V2Reader, flat, read, read_int, write
from wharfie.spi.errors import DriverError, InvalidArgument
from wharfie_runtime_native.cgroups import device_program, device_rules
from wharfie_runtime_native.cgroups.base import Cgroup, error_number, make, rdma_line

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
            os.makedirs(parent, 0o755, exist_ok=True)
        self._delegate(parent)
        make(self._directory)

    def _delegate(self, parent: str) -> None:
        """Let groups below `parent` have every controller that it has itself."""
        enabled = read(parent, "cgroup.subtree_control").split()
        missing = [f"+{name}" for name in read(parent, "cgroup.controllers").split() if name not in enabled]
        if not missing:
            return
        try:
            write(parent, "cgroup.subtree_control", " ".join(missing))
        except InvalidArgument as error:
            # Processes are in it. Single controllers would work, but make groups below that take no processes: it is
            # left as it is, and a limit will say what is missing.
            if error_number(error) == errno.EBUSY:
                return
            for name in missing:
                try:
                    write(parent, "cgroup.subtree_control", name)
                except InvalidArgument:  # e.g. cpu with real-time processes in the root: the limit itself will say so
                    continue

    def apply(self, resources: Mapping[str, Any]) -> None:
        if "devices" in resources:
            device_program.attach(self._directory, device_rules.effective(resources["devices"] or ()))
        self._apply_memory(resources.get("memory") or {})
        self._apply_cpu(resources.get("cpu") or {})
        if limit := (resources.get("pids") or {}).get("limit"):
            self._write("pids.max", str(limit) if limit > 0 else "max")
        self._apply_block_io(resources.get("blockIO") or {})
        for entry in resources.get("hugepageLimits") or ():
            self._write(f"hugetlb.{entry['pageSize']}.max", str(entry["limit"]))
        for device, limits in (resources.get("rdma") or {}).items():
            self._write("rdma.max", rdma_line(device, limits))
        if any((resources.get("network") or {}).values()):
            raise InvalidArgument("linux.resources.network needs cgroup v1; this host's controllers are version 2")
        for name, value in (resources.get("unified") or {}).items():
            if "/" in name:
                raise InvalidArgument(f'linux.resources.unified: "{name}" is not the name of a control file')
            for line in str(value).splitlines():
                self._write(name, line)

    def _write(self, name: str, value: str) -> None:
        """Write one control file. Errors: InvalidArgument: the kernel's word, or that the controller is not there."""
        try:
            write(self._directory, name, value)
        except InvalidArgument as error:
            controller = name.partition(".")[0]
            available = read(self._directory, "cgroup.controllers").split()
            if error_number(error) != errno.ENOENT or controller in available or controller == "cgroup":
                raise
            raise InvalidArgument(
                f'cannot set {name}: {self._directory} has no controller "{controller}"; the groups above it '
                "have to pass it on in cgroup.subtree_control",
                details=error.details,
            ) from error

    def _apply_memory(self, memory: Mapping[str, Any]) -> None:
        limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
        if limit > 0 and memory.get("checkBeforeUpdate"):
            used = read_int(self._directory, "memory.current")
            if used > limit:
                raise InvalidArgument(f"unable to set memory limit to {limit}: {used} bytes are in use")
        if swap:
            # OCI counts memory and swap together, as version 1 does; version 2 counts swap alone.
            if swap > 0 and limit <= 0:
                limit = limit or read_int(self._directory, "memory.max")
            if swap > 0 and swap < limit:
                raise InvalidArgument(f"memory+swap limit {swap} is below the memory limit {limit}")
            self._write("memory.swap.max", "max" if swap == -1 else str(swap - limit))
        if memory.get("limit"):
            self._write("memory.max", "max" if limit == -1 else str(limit))
        if reservation := memory.get("reservation"):
            self._write("memory.low", "max" if reservation == -1 else str(reservation))

    def _apply_cpu(self, cpu: Mapping[str, Any]) -> None:
        if cpu.get("realtimePeriod") or cpu.get("realtimeRuntime"):
            raise InvalidArgument("real-time limits need cgroup v1; this host's controllers are version 2")
        if (idle := cpu.get("idle")) is not None:
            self._write("cpu.idle", str(idle))
        # An idle group has no weight: the kernel refuses one.
        if (shares := cpu.get("shares")) and not idle:
            self._write("cpu.weight", str(weight_of_shares(shares)))
        burst = cpu.get("burst")
        if burst is not None and burst < read_int(self._directory, "cpu.max.burst"):
            # A burst must not be above the quota: whichever moves away from the other goes first.
            self._write("cpu.max.burst", str(burst))
            burst = None
        if cpu.get("quota") or cpu.get("period"):
            quota, period = cpu.get("quota") or 0, cpu.get("period") or 0
            old = [*read(self._directory, "cpu.max").split(), "max", str(_DEFAULT_PERIOD)]
            amount = str(quota) if quota > 0 else "max" if quota < 0 else old[0]
            self._write("cpu.max", f"{amount} {period or old[1]}")
        if burst is not None:
            self._write("cpu.max.burst", str(burst))
        for key in ("cpus", "mems"):
            if cpu.get(key):
                self._write(f"cpuset.{key}", str(cpu[key]))

    def _apply_block_io(self, block_io: Mapping[str, Any]) -> None:
        own = os.path.exists(f"{self._directory}/io.bfq.weight")
        name = "io.bfq.weight" if own else "io.weight"
        if weight := block_io.get("weight"):
            self._write(name, str(weight if own else weight_of_block_io(weight)))
        for entry in block_io.get("weightDevice") or ():
            weight = entry["weight"] if own else weight_of_block_io(entry["weight"])
            self._write(name, f"{entry['major']}:{entry['minor']} {weight}")
        for key, word in _THROTTLES.items():
            for entry in block_io.get(key) or ():
                self._write("io.max", f"{entry['major']}:{entry['minor']} {word}={entry['rate']}")

    def open_for_fork(self) -> int:
        # Writing to cgroup.procs takes a lock of all the system, whose RCU grace period costs 6 to 10 ms; a process that
        # is forked into its group does not pay it.
        return os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def join(self, *, beside: int = -1) -> None:
        if own_path("self") == self.path:
            return
        try:
            write(self._directory, "cgroup.procs", "0")
        except InvalidArgument as error:
            if error_number(error) != errno.EBUSY or beside < 0:
                raise
            write(f"{self._root}/{own_path(pid_of(beside))}", "cgroup.procs", "0")

    def freeze(self) -> None:
        write(self._directory, "cgroup.freeze", "1")
        end = time.monotonic() + _FREEZE_SECONDS
        while flat(read(self._directory, "cgroup.events")).get("frozen") != 1:
            if time.monotonic() > end:
                write(self._directory, "cgroup.freeze", "0")
                raise DriverError(f"{self._directory} does not freeze within {_FREEZE_SECONDS:.0f} s")
            time.sleep(0.001)

    def freezer(self) -> str:
        return self._directory

    def thaw(self) -> None:
        write(self._directory, "cgroup.freeze", "0")

    def kill(self) -> None:
        if os.path.exists(f"{self._directory}/cgroup.kill"):
            write(self._directory, "cgroup.kill", "1")
        else:  # before Linux 5.14, or no group
            self.kill_each()


def weight_of_shares(shares: int) -> int:
    """cpu.weight for cpu.shares: 2 … 262144 onto 1 … 10000, the mapping that container runtimes agreed on (Kubernetes
    KEP-2254). What is outside is set to the nearest, as version 1 does."""
    return 1 + (min(max(shares, 2), 262144) - 2) * 9999 // 262142


def weight_of_block_io(weight: int) -> int:
    """io.weight for blkio.weight: 10 … 1000 onto 1 … 10000 (runc, docs/cgroup-v2.md)."""
    return 1 + (weight - 10) * 9999 // 990


def own_path(pid: int | str) -> str:
    """The version 2 group that a process is in, below the root that this process sees."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        lines = file.read().splitlines()
    for line in lines:
        if line.startswith("0::"):
            return line.removeprefix("0::").strip("/")
    return ""


def pid_of(pidfd: int) -> int:
    """The process that a pidfd stands for, -1 when it is gone (proc(5), fdinfo)."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        text = file.read()
    return int(text.partition("\nPid:")[2].split(None, 1)[0])
