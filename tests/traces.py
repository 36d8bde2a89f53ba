"""What the kernel and the disk hold of a daemon, to be compared before and after."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.harness import Daemon


def trace(daemon: Daemon) -> dict[str, Any]:
    """All that a container leaves while it runs or exists."""
    return {
        "mounts": daemon.mounts(),
        "links": daemon.links(),
        "cgroups": daemon.cgroups(),
        "rules": _rules(daemon),
        "processes": len(daemon.processes()),
        "namespaces": len(set(_namespaces(daemon))),
        "containers": names(daemon.data / "containers"),
        "bundles": names(daemon.run / "bundles"),
        "names": names(daemon.run / "names"),
        "runtime": names(daemon.run / "runtime" / "native"),
        "layers": [name for name in files(daemon.data / "storage") if name.endswith("/upper")],
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*") if not path.name.startswith(".rehearsal-"))


def files(folder: Path) -> list[str]:
    """All paths below a folder from which something may just be removed."""
    return sorted(f"{place}/{name}" for place, *inside in os.walk(folder) for name in itertools.chain(*inside))


def descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def threads(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())


def proportional_size(pid: int) -> int:
    """PSS in kilobytes: pages that n processes share count one n-th."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(rollup.partition("\nPss:")[2].split()[0])


def _rules(daemon: Daemon) -> int:
    """Elements in the maps and sets of its firewall table."""
    table = subprocess.run(
        ["nft", "-j", "list", "table", "inet", f"wharfie_{daemon.instance}"], capture_output=True, check=False
    )
    if table.returncode != 0:
        return 0
    held = ((entry.get("map") or entry.get("set") or {}).get("elem", ()) for entry in json.loads(table.stdout)["nftables"])
    return sum(len(elements) for elements in held)


def _namespaces(daemon: Daemon) -> Iterator[Path]:
    """Network namespaces of the daemon's containers."""
    for path in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            if daemon.cgroup in (path.parent.parent / "cgroup").read_text():
                yield path.readlink()
        except OSError:
            continue
