"""events: a container's counters and memory kills, as JSON lines in runc's form."""

from __future__ import annotations

import json
import math
import os
import re
import select
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from wharfie.shim.cgroups import read, read_int
from wharfie.spi.errors import Conflict, InvalidArgument
from wharfie_runtime_native import pids
from wharfie_runtime_native.command.containers import ALIVE, record_of, status_of
from wharfie_runtime_native.command.engine import Kept
from wharfie_runtime_native.command.session import Session
from wharfie_runtime_native.command.words import Command, Given, Option

_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SETTLES: Final = 0.2
"""Seconds from the word on memory to the count of kills, which version 1 raises a moment after it tells."""
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _events(session: Session, given: Given) -> None:
    """Print statistics at intervals, and memory kills when they happen, until the container ends."""
    [name] = given.words
    seconds = _seconds(given.text("interval", "5s"))
    with session.store.find(name) as folder:
        record = record_of(folder)
        status = status_of(folder, record)
        if status not in ALIVE:
            raise Conflict(f"container with name {name} is not running: it is {status}")
        engine = Kept.find(session, folder, record)
        if given.has("stats"):
            _print("stats", name, engine)
        else:
            _follow(engine, seconds)


events_command = Command(
    _events,
    options=(
        Option(("interval",), "Time between statistics as Go writes it, 5s if not said.", "TIME"),
        Option(("stats",), "Print statistics once, and end."),
    ),
)


def _seconds(text: str) -> float:
    """Errors: InvalidArgument."""
    parts = _PART.findall(text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or seconds <= 0:
        raise InvalidArgument(f'duration interval "{text}" must be greater than 0, as in 5s')
    return seconds


def _follow(engine: Kept, seconds: float) -> None:
    record = engine.record
    process, killed = pids.open_pidfd(record.pid, record.pid_start), engine.oom_fd()
    watched = [fd for fd in (process, killed) if fd >= 0]
    kills = engine.oom_kills()
    due = time.monotonic()
    look = math.inf
    while process in watched:
        ready, _, _ = select.select(watched, [], [], max(0.0, min(due, look) - time.monotonic()))
        if killed in ready:
            os.read(killed, 4096)
            look = min(look, time.monotonic() + _SETTLES)
            if not engine.pids():  # the group goes away, which wakes its watchers too
                watched.remove(killed)
        if process in ready or time.monotonic() >= look:
            look = math.inf
            if engine.oom_kills() > kills:
                kills = engine.oom_kills()
                _print("oom", engine.id)
        if process in ready:
            return
        if time.monotonic() >= due:
            _print("stats", engine.id, engine)
            due += seconds


def _print(kind: str, id: str, engine: Kept | None = None) -> None:
    event: dict[str, Any] = {"type": kind, "id": id}
    if engine is not None:
        event["data"] = _data(engine.stats(), _further_memory(engine.group("memory")))
    print(json.dumps(event), flush=True)


def _data(stats: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """The counters by runc's names (its types/events.go), without those that version 2 does not have. `more`: of memory."""
    cpu, memory, raw = stats["cpu"], stats["memory"], stats["memory"]["stats"]
    return {
        "cpu": {
            "usage": {
                "total": cpu["usage_ns"],
                **({"percpu": cpu["percpu_ns"]} if "percpu_ns" in cpu else {}),
                "kernel": cpu["system_ns"],
                "user": cpu["user_ns"],
            },
            "throttling": {
                "periods": cpu["periods"],
                "throttledPeriods": cpu["throttled_periods"],
                "throttledTime": cpu["throttled_ns"],
            },
        },
        "memory": {
            "cache": raw.get("cache", raw.get("file", 0)),
            "usage": {"failcnt": 0, **{key: memory[name] for key, name in _MEMORY.items() if name in memory}},
            **more,
            "raw": raw,
        },
        "pids": {key: value for key, value in stats["pids"].items() if value < _NO_LIMIT},
        "blkio": {
            "ioServiceBytesRecursive": list(_block(stats["blkio"])),
            "ioServicedRecursive": list(_block(stats.get("blkio_serviced", ()))),
        },
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _further_memory(group: str) -> dict[str, dict[str, int]]:
    """Counters that only this command wants, where version 1 has them."""
    return {
        key: {name: read_int(group, f"memory.{kind}.{file}") for name, file in _FILES.items()}
        for key, kind in (("swap", "memsw"), ("kernel", "kmem"), ("kernelTCP", "kmem.tcp"))
        if read(group, f"memory.{kind}.limit_in_bytes")
    }


_NO_LIMIT: Final = (1 << 63) - 1
_FILES: Final = {
    "limit": "limit_in_bytes",
    "usage": "usage_in_bytes",
    "max": "max_usage_in_bytes",
    "failcnt": "failcnt",
}
_MEMORY: Final = {"limit": "limit", "usage": "usage", "max": "max_usage", "failcnt": "failcnt"}


def _block(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    return [{**row, "op": str(row["op"]).capitalize()} for row in rows]
