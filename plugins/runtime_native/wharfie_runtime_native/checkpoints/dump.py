"""Writing a checkpoint of a frozen container."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from wharfie.spi.errors import InvalidArgument, NotFound
from wharfie_runtime_native.cgroups.base import Cgroup
from wharfie_runtime_native.checkpoints import criu, traits

RECORD: Final = "wharfie.json"
"""Beside criu's images: what is from outside, by the names that criu knows it by."""
LOG: Final = "dump.log"
ALL_OPTIONS: Final = ("--tcp-established",)
"""Connections cannot be brought back to peers that have gone on; they are found closed after a restore."""
_VERSION: Final = 1


def write(
    spec: Mapping[str, Any],
    pid: int,
    cgroup: Cgroup,
    folder: Path,
    pipes: Mapping[int, int],
    options: Sequence[str] = ALL_OPTIONS,
    work: Path | None = None,
) -> None:
    """Into an empty folder; the processes are as before. `cgroup`: holds them still. `pipes`: as `Engine.checkpoint` has
    them. `options`: of criu's. `work`: a folder for its log, if not the same.

    Errors: Unsupported (no criu, not on this host, not this container), DriverError (what criu says).
    """
    traits.check(spec)
    program = criu.find()
    pids = cgroup.pids()
    traits.check_privileges(spec, pids, program)
    streams = traits.streams(pid, pids, pipes)
    mounts = traits.outer_mounts(pid)
    words = ["dump", "--tree", str(pid), "--images-dir", str(folder), "--work-dir", str(work or folder), "--log-file", LOG]
    words += [*criu.COMMON, "--root", f"/proc/{pid}/root", "--freeze-cgroup", cgroup.freezer(), "--leave-running"]
    words += ["--network-lock", "nftables", *options]
    for key in streams:
        if key.startswith("file"):
            words += ["--external", key]
    for point in mounts:
        words += ["--external", f"mnt[{point}]:{point}"]
    network = traits.has_own("network", spec)
    if network:
        inode = os.stat(f"/proc/{pid}/ns/net").st_ino
        words += ["--external", f"net[{inode}]:{traits.NETWORK}"]
    criu.run(program, words, (work or folder) / LOG)
    record = {"version": _VERSION, "streams": streams, "mounts": mounts, "network": network}
    (folder / RECORD).write_text(json.dumps(record))
    _sync(folder)


def _sync(folder: Path) -> None:
    """The processes may be ended next, and the memory of theirs that is left is here."""
    for path in (*folder.iterdir(), folder):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def read_record(folder: Path) -> Mapping[str, Any]:
    """Errors: NotFound, InvalidArgument."""
    if not folder.is_dir():
        raise NotFound(f"there is no checkpoint {folder}")
    try:
        record = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        record = None
    if not isinstance(record, dict) or record.get("version") != _VERSION:
        raise InvalidArgument(
            f"{folder} is no checkpoint that this runtime wrote: it has no {RECORD} of version {_VERSION}"
        )
    return record
