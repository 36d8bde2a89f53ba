"""state, list, ps, features: what there is."""

from __future__ import annotations

import json
from typing import Final

from wharfie.spi.errors import DriverError
from wharfie_runtime_native.command.containers import pids_of, record_of, state_of, states
from wharfie_runtime_native.command.session import Session
from wharfie_runtime_native.command.words import Command, Given, Option

_FORMAT: Final = Option(("f", "format"), "How it is printed.", "FORMAT", ("table", "json"))
_COLUMNS: Final = ("id", "pid", "status", "bundle", "created", "owner")


def _state(session: Session, given: Given) -> None:
    """Print a container's state as JSON."""
    with session.store.find(given.words[0]) as folder:
        print(json.dumps(state_of(folder), indent=2))


state_command = Command(_state)


def _list(session: Session, given: Given) -> None:
    """List the containers below --root."""
    if given.has("quiet"):
        for name in session.store.ids():
            print(name)
        return
    found = states(session.store)
    if given.text("format") == "json":
        print(json.dumps(found))
        return
    rows = [[column.upper() for column in _COLUMNS], *([str(state[column]) for column in _COLUMNS] for state in found)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(_COLUMNS))]
    for row in rows:
        print("   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


list_command = Command(_list, (), (_FORMAT, Option(("q", "quiet"), "Ids only.")))


def _ps(session: Session, given: Given) -> None:
    """Show a container's processes, by the host's pids. OPTIONS are ps(1)'s, -ef if there are none."""
    name, *options = given.words
    with session.store.find(name) as folder:
        pids = pids_of(record_of(folder))
    if given.text("format") == "json":
        print(json.dumps(pids))
        return
    for line in _select(_table(options or ["-ef"]), pids):
        print(line)


ps_command = Command(_ps, ("ID", "[OPTION...]"), (_FORMAT,))


def _table(options: list[str]) -> list[str]:
    import subprocess  # for a person at a terminal; engines want JSON

    try:
        done = subprocess.run(["ps", *options], capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError:
        raise DriverError("there is no ps(1) on this host; `ps --format json` needs none") from None
    if done.returncode:
        raise DriverError(f"ps {' '.join(options)}: {done.stderr.strip()}")
    return done.stdout.splitlines()


def _select(lines: list[str], pids: list[int]) -> list[str]:
    """The head of a table of ps(1) and the lines of these processes. Errors: DriverError (no column PID)."""
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise DriverError("the output of ps has no column PID")
    column, wanted = titles.index("PID"), {str(pid) for pid in pids}
    kept = [lines[0]]
    for line in lines[1:]:
        fields = line.split(None, column + 1)
        if len(fields) > column and fields[column] in wanted:
            kept.append(line)
    return kept


def _features(session: Session, given: Given) -> None:
    """Print what this runtime can do (runtime-spec, features.md)."""
    from wharfie_runtime_native.features import features  # none of its tables is for the other commands

    print(json.dumps(features(), indent=2))


features_command = Command(_features, ())
