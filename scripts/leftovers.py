"""What an engine could leave on a host, kind by kind: how it is found, and how it is taken away.

Everything that a daemon makes carries its data root's instance id, its cgroup parent or a path of its folders, so what is
another's is never seen here.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Traces:
    """By what the objects of one daemon are known."""

    root: Path  # holds data root, exec root and socket
    cgroup: str  # "/name"
    instance: str  # "" before the daemon's first start


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object. `remove` is given what `find` found and may fail for single ones: they are found again."""

    name: str
    find: Callable[[Traces], list[str]]
    remove: Callable[[str], None]


def processes(traces: Traces) -> list[str]:
    """Process ids of daemon, zygote and shims, by their command lines, and of what runs in the cgroups."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if os.fsencode(f"{traces.root}/") in (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
    for cgroup in cgroups(traces):
        with contextlib.suppress(OSError):
            found.update(int(pid) for pid in Path(cgroup, "cgroup.procs").read_text().split())
    return [str(pid) for pid in sorted(found)]


def mounts(traces: Traces) -> list[str]:
    """Mount points below the root, innermost first."""
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return sorted((point for point in points if point.startswith(f"{traces.root}/")), reverse=True)


def links(traces: Traces) -> list[str]:
    """Bridges and the host's ends of veth pairs, by their alias."""
    described = json.loads(_output("ip", "-json", "link", "show"))
    prefix = f"wharfie:{traces.instance}:"
    return [link["ifname"] for link in described if traces.instance and link.get("ifalias", "").startswith(prefix)]


def tables(traces: Traces) -> list[str]:
    """The nftables table."""
    listed = _output("nft", "list", "tables").splitlines()
    return [line.removeprefix("table ") for line in listed if traces.instance and line.endswith(f"_{traces.instance}")]


def rules(traces: Traces) -> list[str]:
    """Rules in other people's chains, as nft names them."""
    found = (item.get("rule", {}) for item in json.loads(_output("nft", "--json", "list", "ruleset"))["nftables"])
    return [
        f"{rule['family']} {rule['table']} {rule['chain']} handle {rule['handle']}"
        for rule in found
        if traces.instance and rule.get("comment", "").startswith(f"wharfie:{traces.instance}")
    ]


def cgroups(traces: Traces) -> list[str]:
    """Innermost first, in every hierarchy."""
    hierarchies = [Path("/sys/fs/cgroup"), *(path for path in Path("/sys/fs/cgroup").glob("*/"))]
    found: list[Path] = []
    for hierarchy in hierarchies:
        top = hierarchy / traces.cgroup.lstrip("/")
        if top.is_dir():
            found += [top, *(path for path in top.rglob("*/") if path.is_dir())]
    return sorted((str(path) for path in found), reverse=True)


def files(traces: Traces) -> list[str]:
    """Of containers, blobs, layers and volumes; the database and caches are the daemon's own."""
    found: list[Path] = []
    for name in ("containers", "content/blobs", "storage", "volume"):
        found += (traces.root / "data" / name).rglob("*")
    return sorted(str(path) for path in found if path.is_symlink() or not path.is_dir())


def _output(*words: str) -> str:
    return subprocess.run(words, capture_output=True, check=True, text=True).stdout


def _run(*words: str) -> Callable[[str], None]:
    def remove(name: str) -> None:
        subprocess.run([*words, *name.split()], capture_output=True, check=False)

    return remove


def _kill(pid: str) -> None:
    with contextlib.suppress(OSError):
        os.kill(int(pid), signal.SIGKILL)


def _rmdir(path: str) -> None:
    with contextlib.suppress(OSError):
        Path(path).rmdir()


def _unlink(path: str) -> None:
    Path(path).unlink(missing_ok=True)


KINDS: Sequence[Kind] = (
    Kind("processes", processes, _kill),
    Kind("mounts", mounts, _run("umount", "--lazy")),
    Kind("network interfaces", links, _run("ip", "link", "delete")),
    Kind("nftables tables", tables, _run("nft", "delete", "table")),
    Kind("rules in others' chains", rules, _run("nft", "delete", "rule")),
    Kind("cgroups", cgroups, _rmdir),
    Kind("files of objects", files, _unlink),
)


def look(traces: Traces) -> dict[str, list[str]]:
    """What is there, by kind."""
    return {kind.name: kind.find(traces) for kind in KINDS}


def sweep(traces: Traces, seconds: float = 5.0) -> None:
    """Take everything away that is there, the daemon included. For a demonstration that was cut off."""
    deadline = time.monotonic() + seconds
    while any(look(traces).values()) and time.monotonic() < deadline:
        for kind in KINDS:
            for name in kind.find(traces):
                kind.remove(name)
        time.sleep(0.05)
