"""update: other limits for a container that runs."""

from __future__ import annotations

import json
import re
import sys
from typing import Any, Final

from wharfie.spi.errors import Conflict, InvalidArgument
from wharfie_runtime_native.command import fields
from wharfie_runtime_native.command.containers import ALIVE, record_of, status_of
from wharfie_runtime_native.command.engine import Kept
from wharfie_runtime_native.command.session import Session
from wharfie_runtime_native.command.words import Command, Given, Option

_SIZE: Final = re.compile(r"(-1|\d+)([bkmgtp]?)i?b?", re.IGNORECASE)

_FLAGS: Final = {
    "blkio-weight": ("blockIO", "weight", "Weight of block I/O, 10 to 1000."),
    "cpu-period": ("cpu", "period", "Length of a period, in microseconds."),
    "cpu-quota": ("cpu", "quota", "Time in a period, in microseconds."),
    "cpu-burst": ("cpu", "burst", "Time that may be saved up, in microseconds."),
    "cpu-share": ("cpu", "shares", "Share beside other containers."),
    "cpu-rt-period": ("cpu", "realtimePeriod", "Period of real-time processes, in microseconds."),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime", "Time of real-time processes in it, in microseconds."),
    "cpu-idle": ("cpu", "idle", "1: run only when nothing else wants to."),
    "cpuset-cpus": ("cpu", "cpus", "CPUs, as in 0-2,7."),
    "cpuset-mems": ("cpu", "mems", "Memory nodes."),
    "memory": ("memory", "limit", "Memory, as in 512m; -1 for no limit."),
    "memory-reservation": ("memory", "reservation", "Memory that is left to it when there is little."),
    "memory-swap": ("memory", "swap", "Memory and swap together; -1 for no limit."),
    "pids-limit": ("pids", "limit", "How many processes there may be; -1 for no limit."),
}
"""Flag → where its value goes in `linux.resources`, and what it is."""

_TEXTS: Final = frozenset(("cpus", "mems"))


def _update(session: Session, given: Given) -> None:
    """Change a container's limits."""
    [name] = given.words
    resources = given.text("resources")
    wanted = _from_file(resources) if resources else _from_flags(given)
    with session.store.locked(name) as folder:
        record = record_of(folder)
        status = status_of(folder, record, locked=True)
        if status not in ALIVE:
            raise Conflict(f"container not running: {name} is {status}")
        Kept.find(session, folder, record).update(wanted)


update_command = Command(
    _update,
    options=(
        Option(("r", "resources"), 'JSON of linux.resources, "-" for stdin; then no other flag counts.', "FILE"),
        *(Option((flag,), text, "VALUE") for flag, (_, _, text) in _FLAGS.items()),
    ),
)


def _from_file(name: str) -> dict[str, Any]:
    """Errors: InvalidArgument."""
    try:
        if name == "-":
            wanted = json.load(sys.stdin)
        else:
            with open(name, "rb") as file:
                wanted = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"cannot read resources from {name}: {error}") from error
    if not isinstance(wanted, dict):
        raise InvalidArgument(f"{name} has no JSON object")
    fields.check(wanted, fields.RESOURCES, "resources")
    return wanted


def _from_flags(given: Given) -> dict[str, Any]:
    wanted: dict[str, dict[str, Any]] = {}
    for flag, (section, key, _) in _FLAGS.items():
        text = given.text(flag)
        if text and section == "memory":
            wanted.setdefault(section, {})[key] = _bytes(flag, text)
        elif text:
            wanted.setdefault(section, {})[key] = text if key in _TEXTS else given.number(flag)
    if not wanted:
        raise InvalidArgument("there is nothing to update: give a flag, or --resources")
    return wanted


def _bytes(flag: str, text: str) -> int:
    """A size with a unit of 1024s. Errors: InvalidArgument."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InvalidArgument(f'--{flag} "{text}" is not a size such as 512m')
    number, unit = found.groups()
    return int(number) << (10 * "bkmgtp".index(unit.lower() or "b")) if number != "-1" else -1
