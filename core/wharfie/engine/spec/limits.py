"""Resource limits: checked when a container is created, written as OCI `linux.resources` and `process.rlimits`.

Rules and texts are Docker's (contract of `POST /containers/create`, HostConfig); what the kernel refuses later is said
by the runtime.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wharfie.engine.model.host import HostConfig, Ulimit
from wharfie.engine.settings import DefaultUlimit
from wharfie.spi.errors import InvalidArgument

MINIMUM_MEMORY = 6 * 1024 * 1024
CPU_PERIOD = 100_000  # microseconds
_MOST_CPUS = 1 << 16  # more than any kernel counts; a list cannot fill the memory

# setrlimit(2): names as `--ulimit` takes them.
ULIMITS = frozenset(
    {"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio"}
    | {"rttime", "sigpending", "stack"}
)


def check(host: HostConfig) -> None:
    """Errors: InvalidArgument. Fills MemorySwap in where Docker does."""
    _check_memory(host)
    _check_cpu(host)
    if host.pids_limit is not None and host.pids_limit < -1:
        raise InvalidArgument(f"invalid PidsLimit {host.pids_limit}: want a number above 0, or 0 or -1 for no limit")
    if host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidArgument(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    for ulimit in host.ulimits or ():
        if ulimit.name not in ULIMITS:
            raise InvalidArgument(f"invalid ulimit type: {ulimit.name}")
        if ulimit.hard != -1 and (ulimit.soft == -1 or ulimit.soft > ulimit.hard):
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: {ulimit.soft} > {ulimit.hard}"
            )


def tidy(host: HostConfig) -> None:
    """No limit, as inspect shows it: Docker's clients send -1 or 0."""
    if host.pids_limit is not None and host.pids_limit <= 0:
        host.pids_limit = None
    if host.memory_swappiness == -1:
        host.memory_swappiness = None


def _check_memory(host: HostConfig) -> None:
    memory, swap = host.memory, host.memory_swap
    if memory and memory < MINIMUM_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if swap > 0 and not memory:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if swap > 0 and swap < memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if memory > 0 and swap == 0:
        host.memory_swap = 2 * memory
    if host.memory_swappiness is not None and host.memory_swappiness != -1 and not 0 <= host.memory_swappiness <= 100:
        raise InvalidArgument(f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100")
    if host.memory_reservation and host.memory_reservation < MINIMUM_MEMORY:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if memory and host.memory_reservation > memory:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")


def _check_cpu(host: HostConfig) -> None:
    if host.nano_cpus and (host.cpu_quota or host.cpu_period):
        which = "CPU Quota" if host.cpu_quota else "CPU Period"
        raise InvalidArgument(f"Conflicting options: Nano CPUs and {which} cannot both be set")
    if host.nano_cpus and not 0 <= host.nano_cpus <= (cpus := os.cpu_count() or 1) * 10**9:
        raise InvalidArgument(f"range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available")
    if host.cpu_shares < 0:
        raise InvalidArgument(f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer")
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < host.cpu_quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    _check_set("cpus", "CPUs", host.cpuset_cpus, Path("/sys/devices/system/cpu/online"))
    _check_set("mems", "memory nodes", host.cpuset_mems, Path("/sys/devices/system/node/online"))


def _check_set(key: str, things: str, asked: str, online: Path) -> None:
    if not asked:
        return
    try:
        wanted = _members(asked)
    except ValueError as error:
        raise InvalidArgument(f"Invalid value {asked} for cpuset {key}: invalid format: {asked}") from error
    available = online.read_text().strip() if online.exists() else "0"
    if not wanted <= _members(available):
        raise InvalidArgument(f"Requested {things} are not available - requested {asked}, available: {available}")


def _members(text: str) -> set[int]:
    """Of the kernel's lists: "0-3,7". Errors: ValueError."""
    members: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if not 0 <= low <= high < _MOST_CPUS:
            raise ValueError(f"no range of numbers: {part!r}")
        members.update(range(low, high + 1))
    return members


def resources(host: HostConfig) -> dict[str, Any]:
    """OCI `linux.resources` without devices."""
    memory: dict[str, Any] = {}
    if host.memory:
        memory["limit"] = host.memory
    if host.memory_swap:
        memory["swap"] = host.memory_swap
    if host.memory_reservation:
        memory["reservation"] = host.memory_reservation
    if host.memory_swappiness is not None and host.memory_swappiness != -1:
        memory["swappiness"] = host.memory_swappiness
    if host.oom_kill_disable:
        memory["disableOOMKiller"] = True
    cpu: dict[str, Any] = {}
    if host.nano_cpus:
        cpu.update(quota=host.nano_cpus * CPU_PERIOD // 10**9, period=CPU_PERIOD)
    for key, value in (
        ("shares", host.cpu_shares),
        ("quota", host.cpu_quota),
        ("period", host.cpu_period),
        ("realtimePeriod", host.cpu_realtime_period),
        ("realtimeRuntime", host.cpu_realtime_runtime),
        ("cpus", host.cpuset_cpus),
        ("mems", host.cpuset_mems),
    ):
        if value:
            cpu[key] = value
    result: dict[str, Any] = {"memory": memory, "cpu": cpu, "blockIO": _block_io(host)}
    if host.pids_limit is not None:  # 0 is said too, as an update takes a limit away with it
        result["pids"] = {"limit": host.pids_limit or -1}
    return {key: value for key, value in result.items() if value}


def _block_io(host: HostConfig) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if host.blkio_weight:
        result["weight"] = host.blkio_weight
    if host.blkio_weight_device:
        result["weightDevice"] = [{**_numbers(device.path), "weight": device.weight} for device in host.blkio_weight_device]
    for key, devices in (
        ("throttleReadBpsDevice", host.blkio_device_read_bps),
        ("throttleWriteBpsDevice", host.blkio_device_write_bps),
        ("throttleReadIOPSDevice", host.blkio_device_read_i_ops),
        ("throttleWriteIOPSDevice", host.blkio_device_write_i_ops),
    ):
        if devices:
            result[key] = [{**_numbers(device.path), "rate": device.rate} for device in devices]
    return result


def _numbers(path: str) -> dict[str, int]:
    try:
        number = os.stat(path).st_rdev
    except OSError as error:
        raise InvalidArgument(f"stat {path}: {str(error.strerror).lower()}") from error
    return {"major": os.major(number), "minor": os.minor(number)}


def rlimits(asked: Sequence[Ulimit], defaults: Mapping[str, DefaultUlimit]) -> list[dict[str, Any]]:
    """OCI `process.rlimits`: the user's, then the daemon's defaults for other names; without any the daemon's own hold."""
    chosen = {name: (limit.soft, limit.hard) for name, limit in defaults.items()}
    chosen.update((ulimit.name, (ulimit.soft, ulimit.hard)) for ulimit in asked)
    return [
        {"type": f"RLIMIT_{name.upper()}", "soft": soft % 2**64, "hard": hard % 2**64}
        for name, (soft, hard) in chosen.items()
    ]
