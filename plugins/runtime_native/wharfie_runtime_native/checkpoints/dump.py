"""Writing a checkpoint of a frozen container."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from wharfie.spi.errors import InvalidArgument, NotFound
from wharfie_runtime_native.checkpoints import criu, traits

RECORD: Final = "wharfie.json"
"""Beside criu's images: what is from outside, by the names that criu knows it by."""
LOG: Final = "dump.log"
_VERSION: Final = 1


def write(spec: Mapping[str, Any], pid: int, freezer: str, folder: Path, more: Sequence[str] = ()) -> None:
    """Into an empty folder; the processes are as before. `freezer`: the control group that holds them still. `more`:
    options of criu's.

    Errors: Unsupported (no criu, not on this host, not this container), DriverError (what criu says).
    """
    traits.check(spec)
    program = criu.find()
    streams = [traits.stream(pid, fd) for fd in range(3)]
    mounts = traits.outer_mounts(pid)
    words = ["dump", "--tree", str(pid), "--images-dir", str(folder), "--work-dir", str(folder), "--log-file", LOG]
    words += [*criu.COMMON, "--root", f"/proc/{pid}/root", "--freeze-cgroup", freezer, "--leave-running"]
    # Connections cannot be brought back to peers that have gone on; they are found closed after a restore.
    words += ["--tcp-established", "--network-lock", "nftables"]
    for key in streams:
        if key.startswith("file"):
            words += ["--external", key]
    for point in mounts:
        words += ["--external", f"mnt[{point}]:{point}"]
    network = traits.has_own("network", spec)
    if network:
        inode = os.stat(f"/proc/{pid}/ns/net").st_ino
        words += ["--external", f"net[{inode}]:{traits.NETWORK}"]
    criu.run(program, [*words, *more], folder / LOG)
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
