"""How the kernel runs a process: scheduler, I/O priority, CPUs, execution domain (OCI runtime-spec, config.md
"Linux Process", config-linux.md "Personality"). Imported only when a configuration names one of them.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from wharfie.spi.errors import InvalidArgument
from wharfie_runtime_native.errors import reason
from wharfie_runtime_native.syscalls import libc, oserror

_NUMBERS: Final = {
    "x86_64": {"ioprio_set": 251, "sched_setattr": 314},
    "aarch64": {"ioprio_set": 30, "sched_setattr": 274},
}[os.uname().machine]

# linux/sched.h; SCHED_ISO has a number, but no kernel ever had it
_POLICIES: Final = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
_FLAGS: Final = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
# linux/ioprio.h
_IO_CLASSES: Final = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_IO_CLASS_SHIFT: Final = 13
_IO_LEVELS: Final = range(8)
_IOPRIO_WHO_PROCESS: Final = 1
_CPUS: Final = 65536
# linux/personality.h
_DOMAINS: Final = {"LINUX": 0x0000, "LINUX32": 0x0008}


class SchedAttr(ctypes.Structure):
    """struct sched_attr, its first version (linux/sched/types.h)."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("sched_policy", ctypes.c_uint32),
        ("sched_flags", ctypes.c_uint64),
        ("sched_nice", ctypes.c_int32),
        ("sched_priority", ctypes.c_uint32),
        ("sched_runtime", ctypes.c_uint64),
        ("sched_deadline", ctypes.c_uint64),
        ("sched_period", ctypes.c_uint64),
    )


class Attributes(NamedTuple):
    """What was asked for, None where nothing was. `initial`, `final`: CPUs of a further process before and after it is in
    the container's control group."""

    scheduler: Mapping[str, int] | None = None
    policy: str = ""
    io_priority: int | None = None
    initial: frozenset[int] = frozenset()
    final: frozenset[int] = frozenset()
    personality: int | None = None

    def apply(self, join: Callable[[], None] | None = None) -> None:
        """To the calling process, while it has the runtime's privileges. `join` moves a further process into the
        container's control group; a first one has no affinity of its own. Errors: InvalidArgument with the kernel's word.
        """
        if join is not None:
            _run_on(self.initial)
            join()
            _run_on(self.final)
        if self.scheduler is not None:
            attr = SchedAttr(size=ctypes.sizeof(SchedAttr), **self.scheduler)
            try:
                _call("sched_setattr", ctypes.c_int(0), ctypes.byref(attr), ctypes.c_uint(0))
            except OSError as error:
                hint = "; with cgroup v1 a real-time policy needs cpu.rt_runtime_us" if error.errno == 1 else ""
                message = f"cannot set process.scheduler {self.policy}: {reason(error)}{hint}"
                raise InvalidArgument(message) from error
        if self.io_priority is not None:
            try:
                _call("ioprio_set", ctypes.c_int(_IOPRIO_WHO_PROCESS), ctypes.c_int(0), ctypes.c_int(self.io_priority))
            except OSError as error:
                raise InvalidArgument(f"cannot set process.ioPriority: {reason(error)}") from error
        if self.personality is not None and libc.personality(ctypes.c_ulong(self.personality)) < 0:
            oserror("personality", f"{self.personality:#x}")


def _run_on(cpus: frozenset[int]) -> None:
    """Have the calling process run on these CPUs; none means as before. Errors: InvalidArgument (none of them is there)."""
    if not cpus:
        return
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        wanted = ",".join(map(str, sorted(cpus)))
        raise InvalidArgument(f"cannot set process.execCPUAffinity to {wanted}: {reason(error)}") from error


def parse(process: Mapping[str, Any], personality: Mapping[str, Any] | None) -> Attributes:
    """`process` and `linux.personality` of config.json. Errors: InvalidArgument naming the field."""
    scheduler, affinity = process.get("scheduler"), process.get("execCPUAffinity") or {}
    return Attributes(
        scheduler=None if not scheduler else _scheduler(scheduler),
        policy=str((scheduler or {}).get("policy", "")),
        io_priority=None if not process.get("ioPriority") else _io_priority(process["ioPriority"]),
        initial=_cpus("initial", str(affinity.get("initial") or "")),
        final=_cpus("final", str(affinity.get("final") or "")),
        personality=None if not personality else _personality(personality),
    )


def _scheduler(scheduler: Mapping[str, Any]) -> Mapping[str, int]:
    policy = str(scheduler.get("policy", ""))
    if policy not in _POLICIES:
        raise InvalidArgument(f'process.scheduler: policy "{policy}" is unknown; known are {", ".join(_POLICIES)}')
    nice, priority = int(scheduler.get("nice") or 0), int(scheduler.get("priority") or 0)
    if not -20 <= nice <= 19:
        raise InvalidArgument(f"process.scheduler: nice {nice} is outside -20 … 19")
    if priority and policy not in ("SCHED_FIFO", "SCHED_RR"):
        raise InvalidArgument("process.scheduler: a priority goes with SCHED_FIFO and SCHED_RR only")
    times = {name: int(scheduler.get(name) or 0) for name in ("runtime", "deadline", "period")}
    if any(times.values()) and policy != "SCHED_DEADLINE":
        raise InvalidArgument("process.scheduler: runtime, deadline and period go with SCHED_DEADLINE only")
    return {
        "sched_policy": _POLICIES[policy],
        "sched_flags": _flags(scheduler.get("flags") or ()),
        "sched_nice": nice,
        "sched_priority": priority,
        **{f"sched_{name}": value for name, value in times.items()},
    }


def _flags(names: Sequence[str]) -> int:
    flags = 0
    for name in names:
        if name not in _FLAGS:
            raise InvalidArgument(f'process.scheduler: flag "{name}" is unknown; known are {", ".join(_FLAGS)}')
        flags |= _FLAGS[name]
    return flags


def _io_priority(wanted: Mapping[str, Any]) -> int:
    kind, level = str(wanted.get("class", "")), int(wanted.get("priority") or 0)
    if kind not in _IO_CLASSES:
        raise InvalidArgument(f'process.ioPriority: class "{kind}" is unknown; known are {", ".join(_IO_CLASSES)}')
    if level not in _IO_LEVELS:
        raise InvalidArgument(f"process.ioPriority: priority {level} is outside 0 … 7")
    return _IO_CLASSES[kind] << _IO_CLASS_SHIFT | level


def _cpus(key: str, text: str) -> frozenset[int]:
    """A list such as "0-3,7" (cpuset(7), "List format")."""
    cpus: set[int] = set()
    for part in text.replace(" ", "").split(",") if text.strip() else ():
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last) < _CPUS):
            raise InvalidArgument(f'process.execCPUAffinity.{key}: "{text}" is not a list of CPUs as 0-3,7')
        cpus.update(range(int(first), int(last) + 1))
    return frozenset(cpus)


def _personality(wanted: Mapping[str, Any]) -> int:
    domain = str(wanted.get("domain", ""))
    if domain not in _DOMAINS:
        raise InvalidArgument(f'linux.personality: domain "{domain}" is unknown; known are {", ".join(_DOMAINS)}')
    if wanted.get("flags"):
        raise InvalidArgument("linux.personality: the specification knows no flags yet")
    return _DOMAINS[domain]


def _call(name: str, *arguments: object) -> None:
    if libc.syscall(ctypes.c_long(_NUMBERS[name]), *arguments) < 0:
        oserror(name)
