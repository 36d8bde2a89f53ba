"""Statistics: `GET /containers/{id}/stats`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wharfie.api.streams import timestamp
from wharfie.engine.model.base import NO_TIME
from wharfie.engine.model.container import Container

_BLKIO = (
    "io_service_bytes_recursive",
    "io_serviced_recursive",
    "io_queue_recursive",
    "io_service_time_recursive",
    "io_wait_time_recursive",
    "io_merged_recursive",
    "io_time_recursive",
    "sectors_recursive",
)
_NO_CPU = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}
_NO_LIMIT = 2**63 - 1
_TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")


def stats_view(
    container: Container,
    counters: Mapping[str, Any],
    previous: Mapping[str, Any] | None,
    *,
    host_memory: int,
    named: bool = True,
) -> dict[str, Any]:
    """Definition ContainerStats. Without counters (nothing runs) the same object with zeros.

    `previous`: the view before this one; clients compute rates from the two. `host_memory`: bytes, the limit of a container
    without one.
    """
    running = bool(counters)
    view: dict[str, Any] = {
        "read": timestamp(time.time_ns()) if running else NO_TIME,
        "preread": previous["read"] if previous else NO_TIME,
        "pids_stats": _pids(counters.get("pids", {})),
        "blkio_stats": _blkio(counters) if running else dict.fromkeys(_BLKIO),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(counters["cpu"]) if "cpu" in counters else _NO_CPU,
        "precpu_stats": previous["cpu_stats"] if previous else _NO_CPU,
        "memory_stats": _memory(counters.get("memory", {}), host_memory),
    }
    if named:
        view["name"] = f"/{container.name}"
        view["id"] = container.id
    if counters.get("networks"):
        view["networks"] = counters["networks"]
    return view


def _pids(pids: Mapping[str, Any]) -> dict[str, int]:
    return {name: pids[name] for name in ("current", "limit") if 0 < pids.get(name, 0) < _NO_LIMIT}


def _cpu(cpu: Mapping[str, Any]) -> dict[str, Any]:
    per_cpu = list(cpu.get("percpu_ns") or ())  # only the first version of cgroups counts each processor
    return {
        "cpu_usage": {
            "total_usage": cpu.get("usage_ns", 0),
            **({"percpu_usage": per_cpu} if per_cpu else {}),
            "usage_in_kernelmode": cpu.get("system_ns", 0),
            "usage_in_usermode": cpu.get("user_ns", 0),
        },
        "system_cpu_usage": _host_cpu_ns(),
        "online_cpus": os.cpu_count() or 1,
        "throttling_data": {
            "periods": cpu.get("periods", 0),
            "throttled_periods": cpu.get("throttled_periods", 0),
            "throttled_time": cpu.get("throttled_ns", 0),
        },
    }


def _host_cpu_ns() -> int:
    """Time that all of the host's processors have spent, idle or not (proc(5), /proc/stat: user to softirq)."""
    line = Path("/proc/stat").read_text().partition("\n")[0]
    return sum(int(ticks) for ticks in line.split()[1:8]) * _TICK_NS


def _memory(memory: Mapping[str, Any], host_memory: int) -> dict[str, Any]:
    if not memory:
        return {}
    view = {name: memory.get(name) for name in ("usage", "max_usage", "stats", "failcnt")}
    view["limit"] = min(memory.get("limit") or host_memory, host_memory)
    return {name: value for name, value in view.items() if value}


def _blkio(counters: Mapping[str, Any]) -> dict[str, Any]:
    """Lists of device, operation and value; those that the first version of cgroups does not fill any more are empty, those
    that the second has not, which counts bytes alone, are null."""
    unified = "blkio_serviced" not in counters
    view: dict[str, Any] = {name: None if unified else [] for name in _BLKIO}
    for name, key in (("io_service_bytes_recursive", "blkio"), ("io_serviced_recursive", "blkio_serviced")):
        if key in counters:
            view[name] = [{part: entry[part] for part in ("major", "minor", "op", "value")} for entry in counters[key]]
    return view
