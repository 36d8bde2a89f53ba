"""Control groups, read: counters, processes and memory kills of a container, behind one interface for both versions.

Whoever makes a container's group (an engine, an OCI binary), these figures are found in the same files. A host has one of
three layouts: *v2* (/sys/fs/cgroup is a cgroup2), *v1* (a tmpfs with a folder for each hierarchy), or *hybrid* (v1 with a
cgroup2 at `unified`, which then has no controllers worth using). On a hybrid host version 1 is used.

Sources: kernel, Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final, Literal

from wharfie.spi.errors import InvalidArgument

ROOT: Final = "/sys/fs/cgroup"
DEFAULT_PARENT: Final = "wharfie"
"""The group above those of containers whose configuration names none."""
_IN_MODIFY: Final = 0x2
_CONTROLLERS: Final = frozenset(
    [
        "cpu",
        "cpuacct",
        "cpuset",
        "memory",
        "devices",
        "freezer",
        "blkio",
        "pids",
        "net_cls",
        "net_prio",
        "perf_event",
        "hugetlb",
        "rdma",
        "misc",
    ]
)


class GroupReader(ABC):
    """One container's control group. It may not be there yet, or not any more: then every figure is 0."""

    def __init__(self, path: str) -> None:
        """`path`: below each hierarchy's root, as in `linux.cgroupsPath`. Errors: InvalidArgument."""
        self.path = clean(path)

    @abstractmethod
    def directories(self) -> Mapping[str, str]:
        """The group's folder in each hierarchy, by the hierarchy's name ("" on version 2)."""

    @abstractmethod
    def stats(self) -> dict[str, Any]:
        """Counters as `RuntimeDriver.stats` gives them."""

    @abstractmethod
    def oom_fd(self) -> int:
        """A descriptor that becomes readable after an out-of-memory kill, or -1."""

    @abstractmethod
    def oom_kills(self) -> int:
        """How many processes the kernel has killed in this group for its memory limit."""

    @abstractmethod
    def is_frozen(self) -> bool:
        """Whether its processes are stopped, or are being."""

    def pids(self) -> list[int]:
        """Host pids of the processes in the group and in groups below it."""
        return tree_pids(next(iter(self.directories().values())))


class V1Reader(GroupReader):
    """The group of the same path in every hierarchy."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        mounts = hierarchies()
        self._controllers = {name: f"{root}/{self.path}" for name, root in mounts.items()}
        self._directories = {root.rsplit("/", 1)[1]: f"{root}/{self.path}" for root in mounts.values()}

    def directories(self) -> Mapping[str, str]:
        """By the mount point's name, which is "cpu,cpuacct" where two controllers share a hierarchy."""
        return self._directories

    def is_frozen(self) -> bool:
        return read(self._controllers.get("freezer", ""), "freezer.state").strip() in ("FREEZING", "FROZEN")

    def oom_kills(self) -> int:
        directory = self._controllers.get("memory")
        return 0 if directory is None else flat(read(directory, "memory.oom_control")).get("oom_kill", 0)

    def oom_fd(self) -> int:
        directory = self._controllers.get("memory")
        if directory is None:
            return -1
        control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            write(directory, "cgroup.event_control", f"{event} {control}")
        except InvalidArgument:
            os.close(event)
            return -1
        finally:
            os.close(control)
        return event

    def stats(self) -> dict[str, Any]:
        cpu, cpuacct = self._controllers.get("cpu", ""), self._controllers.get("cpuacct", "")
        memory, pids = self._controllers.get("memory", ""), self._controllers.get("pids", "")
        blkio = self._controllers.get("blkio", "")
        throttling = flat(read(cpu, "cpu.stat"))
        return {
            "cpu": {
                "usage_ns": read_int(cpuacct, "cpuacct.usage"),
                "user_ns": read_int(cpuacct, "cpuacct.usage_user"),
                "system_ns": read_int(cpuacct, "cpuacct.usage_sys"),
                "percpu_ns": [int(word) for word in read(cpuacct, "cpuacct.usage_percpu").split()],
                "periods": throttling.get("nr_periods", 0),
                "throttled_periods": throttling.get("nr_throttled", 0),
                "throttled_ns": throttling.get("throttled_time", 0),
            },
            "memory": {
                "usage": read_int(memory, "memory.usage_in_bytes"),
                "max_usage": read_int(memory, "memory.max_usage_in_bytes"),
                "limit": read_int(memory, "memory.limit_in_bytes"),
                "failcnt": read_int(memory, "memory.failcnt"),
                "stats": flat(read(memory, "memory.stat")),
            },
            "pids": {"current": read_int(pids, "pids.current"), "limit": read_int(pids, "pids.max")},
            "blkio": _blkio(read(blkio, "blkio.throttle.io_service_bytes_recursive")),
            "blkio_serviced": _blkio(read(blkio, "blkio.throttle.io_serviced_recursive")),
        }


class V2Reader(GroupReader):
    """One folder in the unified tree."""

    def __init__(self, path: str, root: str = ROOT) -> None:
        super().__init__(path)
        self._root = root
        self._directory = f"{root}/{self.path}"

    def directories(self) -> Mapping[str, str]:
        return {"": self._directory}

    def is_frozen(self) -> bool:
        return read(self._directory, "cgroup.freeze").strip() == "1"

    def oom_kills(self) -> int:
        return flat(read(self._directory, "memory.events")).get("oom_kill", 0)

    def oom_fd(self) -> int:
        from wharfie.shim.system import inotify  # the others who read groups need no system calls

        events = f"{self._directory}/memory.events"
        return inotify(events, _IN_MODIFY) if os.path.exists(events) else -1

    def stats(self) -> dict[str, Any]:
        """Without `percpu_ns`, `max_usage`, `failcnt` and `blkio_serviced`: what version 2 counts in their place means
        something else (the contract of Docker's statistics)."""
        directory = self._directory
        cpu, memory = flat(read(directory, "cpu.stat")), flat(read(directory, "memory.stat"))
        return {
            "cpu": {
                "usage_ns": cpu.get("usage_usec", 0) * 1000,
                "user_ns": cpu.get("user_usec", 0) * 1000,
                "system_ns": cpu.get("system_usec", 0) * 1000,
                "periods": cpu.get("nr_periods", 0),
                "throttled_periods": cpu.get("nr_throttled", 0),
                "throttled_ns": cpu.get("throttled_usec", 0) * 1000,
            },
            "memory": {
                "usage": read_int(directory, "memory.current"),
                "limit": read_int(directory, "memory.max"),
                "stats": memory,
            },
            "pids": {"current": read_int(directory, "pids.current"), "limit": read_int(directory, "pids.max")},
            "blkio": _io(read(directory, "io.stat"), {"rbytes": "read", "wbytes": "write"}),
        }


@cache
def version() -> Literal["v1", "v2"]:
    """Which version's interface this host's controllers have."""
    return "v2" if os.path.exists(f"{ROOT}/cgroup.controllers") else "v1"


def path_of(spec: Mapping[str, Any], id: str) -> str:
    """`linux.cgroupsPath`, or one made from the id. Errors: InvalidArgument (systemd's form)."""
    path = str((spec.get("linux") or {}).get("cgroupsPath") or f"/{DEFAULT_PARENT}/{id}")
    if "/" not in path and path.count(":") == 2:
        raise InvalidArgument(f'linux.cgroupsPath "{path}" is for the systemd cgroup driver; give a path')
    return path


def open_reader(path: str) -> GroupReader:
    """The control group of `linux.cgroupsPath`. Errors: InvalidArgument (the path)."""
    return V2Reader(path) if version() == "v2" else V1Reader(path)


def warm() -> None:
    """Find out what there is to know of this host; the zygote does it, so that no shim spends time or memory on it."""
    if version() == "v1":
        hierarchies()


def mounted() -> bool:
    """Whether this host has control groups at all."""
    return version() == "v2" or bool(hierarchies())


def roots() -> Sequence[str]:
    """Every hierarchy's root, the bare cgroup2 of a hybrid host's too: runc and crun make their groups in that as well."""
    if version() == "v2":
        return (ROOT,)
    return tuple(root for root in dict.fromkeys((*hierarchies().values(), f"{ROOT}/unified")) if os.path.exists(root))


def prune(parent: str) -> None:
    """Remove a parent group, wherever nothing is left in it."""
    for root in roots():
        try:
            os.rmdir(f"{root}/{parent}")
        except OSError:  # in use by another daemon's containers, or not there
            continue


@cache
def hierarchies() -> Mapping[str, str]:
    """Version 1: mount point of each hierarchy by each of its names ("cpu" and "cpuacct" may share one)."""
    found: dict[str, str] = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            head, _, tail = line.partition(" - ")
            kind, _, options = tail.split(" ", 2)
            fields = head.split()
            if kind != "cgroup" or fields[3] != "/":
                continue
            for option in options.rsplit(" ", 1)[-1].strip().split(","):
                if option.startswith("name="):
                    found.setdefault(option.removeprefix("name="), fields[4])
                elif option in _CONTROLLERS:
                    found.setdefault(option, fields[4])
    return found


def clean(path: str) -> str:
    """A cgroup path without a leading slash. Errors: InvalidArgument (empty, or climbing)."""
    parts = [part for part in path.split("/") if part and part != "."]
    if not parts or ".." in parts:
        raise InvalidArgument(f'linux.cgroupsPath "{path}" is not a path below the cgroup root')
    return "/".join(parts)


def write(directory: str, name: str, value: str) -> None:
    """Write one control file. Errors: InvalidArgument with the kernel's word, as users know it from runc."""
    try:
        fd = os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        word = os.strerror(error.errno or 0).lower()
        raise InvalidArgument(
            f'failed to write "{value}" to {name}: {word}', details={"file": f"{directory}/{name}"}
        ) from error


def read(directory: str, name: str) -> str:
    """The text of a control file, "" when there is none."""
    try:
        fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        chunks = []
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
    except OSError:  # the group went away, or the kernel has no figures (EOPNOTSUPP)
        return ""
    finally:
        os.close(fd)
    return b"".join(chunks).decode("ascii", "replace")


def read_int(directory: str, name: str) -> int:
    """A control file's number; 0 when there is none, "max" as 2**63 - 1."""
    text = read(directory, name).strip()
    if text == "max":
        return (1 << 63) - 1
    return int(text) if text.lstrip("-").isdigit() else 0


def flat(text: str) -> dict[str, int]:
    """The lines of a "flat keyed" control file: `key value`."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].lstrip("-").isdigit()}


def below(directory: str) -> list[str]:
    """The folder and all groups below it, deepest first."""
    found: list[str] = []
    for folder, _, _ in os.walk(directory, topdown=False):
        found.append(folder)
    return found


def tree_pids(directory: str) -> list[int]:
    """Pids in a group and the groups below it."""
    found: list[int] = []
    for folder in below(directory):
        found += [int(line) for line in read(folder, "cgroup.procs").split()]
    return found


def _blkio(text: str) -> Sequence[dict[str, Any]]:
    """Lines `8:0 Read 4096` (the sum lines have no device)."""
    rows = (line.replace(":", " ", 1).split() for line in text.splitlines())
    return [
        {"major": int(row[0]), "minor": int(row[1]), "op": row[2].lower(), "value": int(row[3])}
        for row in rows
        if len(row) == 4 and row[0].isdigit()
    ]


def _io(text: str, keys: Mapping[str, str]) -> Sequence[dict[str, Any]]:
    """Lines `8:0 rbytes=4096 wbytes=0 …`, of which `keys` are wanted, under Docker's words."""
    rows = []
    for line in text.splitlines():
        device, *pairs = line.split()
        major, _, minor = device.partition(":")
        for pair in pairs:
            key, _, value = pair.partition("=")
            if key in keys:
                rows.append({"major": int(major), "minor": int(minor), "op": keys[key], "value": int(value)})
    return rows
