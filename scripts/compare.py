"""The transcripts of `tests/cli/cases` on two engines: what each answers, where they differ, and how many flags agree.

    python scripts/compare.py --ours unix:///run/wharfie.sock --theirs unix:///var/run/docker.sock
    python scripts/compare.py --ours unix:///run/wharfie.sock            with what the files say alone
    python scripts/compare.py --ours ... --theirs ... --record          write the other engine's answers into the files

Both engines must be free to be emptied: before each case all containers, volumes, networks and images but busybox go.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import busybox_image
from cli_flags import Flag, FlagTable
from transcripts import IMAGE, Case, Step, read_all, run, text_of

ROOT = Path(__file__).parents[1]
CASES = ROOT / "tests" / "cli" / "cases"
FLAGS = ROOT / "tests" / "data" / "cli-flags.tsv"


class Engine:
    """One side: a socket, and how it is made clean."""

    def __init__(self, host: str, archive: bytes) -> None:
        self.environment = {"DOCKER_HOST": host, "DOCKER_CLI_HINTS": "false"}
        self._archive = archive
        self._data_root = self._docker("info", "--format", "{{.DockerRootDir}}").strip() or "/nowhere"

    def answers(self, case: Case) -> list[tuple[str, ...]]:
        self.clean()
        return run(case, self.environment, self._data_root)

    def clean(self) -> None:
        self._each("ps -aq", "rm -fv")
        self._each("volume ls -q", "volume rm -f")
        for _ in range(2):  # a configuration network goes after the networks that were made from it
            self._each("network ls -q --filter type=custom", "network rm")
        found = self._docker("image", "ls", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}").split("\n")
        extra = {line.split()[0] for line in found if line and line.split()[1] != IMAGE}
        if extra:
            self._docker("image", "rm", "-f", *sorted(extra))
        if not any(line.endswith(f" {IMAGE}") for line in found):
            self._docker("load", stdin=self._archive)

    def _each(self, listing: str, removal: str) -> None:
        if found := self._docker(*listing.split()).split():
            self._docker(*removal.split(), *found)

    def _docker(self, *words: str, stdin: bytes = b"") -> str:
        environment = {**os.environ, **self.environment}
        result = subprocess.run(["docker", *words], input=stdin, capture_output=True, env=environment, check=False)
        return result.stdout.decode()


class Tally:
    """Counts lines and flags while cases are compared."""

    def __init__(self, table: FlagTable) -> None:
        self._table = table
        self.agree = self.known = self.differ = 0
        self._tried: set[Flag] = set()
        self._agreeing: set[Flag] = set()
        self._reasons: dict[Flag, str] = {}

    def add(self, step: Step, same: bool) -> None:
        flags = self._table.used(step.line)
        self._tried |= flags
        if same:
            self.agree += 1
            self._agreeing |= flags
        elif step.difference:
            self.known += 1
            self._reasons |= dict.fromkeys(flags, step.difference)
        else:
            self.differ += 1

    def counts(self) -> str:
        return f"lines: {self.agree} agree, {self.known} differ for a known reason, {self.differ} differ"

    def flags(self) -> str:
        missing = [flag for flag in self._table.all if flag not in self._tried]
        apart = [flag for flag in self._table.all if flag in self._tried and flag not in self._agreeing]
        lines = [
            f"commands and flags: {len(self._table.all)}, {len(self._tried)} with a case, {len(self._agreeing)} agree",
            *(f"  no case: docker {command} {flag}".rstrip() for command, flag in missing),
            *(f"  apart: docker {flag[0]} {flag[1]}: {self._reasons.get(flag, 'unknown')}" for flag in apart),
        ]
        return "\n".join(lines)


def compare(case: Case, ours: Engine, theirs: Engine | None, tally: Tally, *, record: bool) -> Case:
    """Print what differs and count it; the case with what was recorded, if that was asked for."""
    own = ours.answers(case)
    other = theirs.answers(case) if theirs else [step.expected for step in case.steps]
    for step, mine, foreign in zip(case.steps, own, other, strict=True):
        same = agree(mine, foreign)
        tally.add(step, same)
        if not same and not (theirs and step.difference):
            print(_difference(case, step, mine, foreign))
        if same and theirs and step.difference:
            print(f"{case.name}: they agree in spite of the reason given\n  $ {step.line}\n")
        if theirs and not record and step.expected and mine != step.expected:
            print(f"{case.name}: the file says otherwise\n{_difference(case, step, mine, step.expected)}")
    if not record:
        return case
    steps = (
        replace(step, expected=mine if step.difference or agree(mine, foreign) else foreign)
        for step, mine, foreign in zip(case.steps, own, other, strict=True)
    )
    return replace(case, steps=tuple(steps))


def agree(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Whether the answers are the same. Of errors our text must hold theirs: an engine may say more, and capitals and the
    runtime's name change from version to version."""
    mine, foreign = (([text for text in lines if not _ERROR.match(text)]) for lines in (ours, theirs))
    own_errors, other_errors = (
        [_ERROR.sub("", text).lower().replace("runc create", "native create") for text in lines if _ERROR.match(text)]
        for lines in (ours, theirs)
    )
    held = all(other in own for own, other in zip(own_errors, other_errors, strict=False))
    return mine == foreign and len(own_errors) == len(other_errors) and held


_ERROR = re.compile(r"2\| (?:docker: )?(?:Error response from daemon: )?")


def _difference(case: Case, step: Step, ours: Sequence[str], theirs: Sequence[str]) -> str:
    lines = [f"  - {line}" for line in theirs if line not in ours] + [f"  + {line}" for line in ours if line not in theirs]
    order = [] if lines else ["  (the same lines in another order)"]
    return "\n".join([f"{case.name}: (- theirs, + ours)", f"  $ {step.line}", *lines, *order, ""])


def uncovered(table: FlagTable, cases: Sequence[Case]) -> list[Flag]:
    """Commands and flags that no case uses."""
    used = {flag for case in cases for step in case.steps for flag in table.used(step.line)}
    return [flag for flag in table.all if flag not in used]


def main() -> int:
    parser = argparse.ArgumentParser(description="The docker command line on two engines.")
    parser.add_argument("--ours", metavar="HOST", help="the engine that is looked at")
    parser.add_argument("--theirs", metavar="HOST", help="the engine that it is compared with; without it, the files")
    parser.add_argument(
        "--record", action="store_true", help="write their answers into the files; ours where a reason stands"
    )
    parser.add_argument(
        "--only", action="append", metavar="CASE", help="a case by its name, instead of all; may be repeated"
    )
    parser.add_argument("--coverage", action="store_true", help="run nothing, and list commands and flags without a case")
    options = parser.parse_args()
    table = FlagTable(FLAGS)
    cases = read_all(CASES)
    if options.coverage:
        missing = uncovered(table, cases)
        print("".join(f"docker {command} {flag}".rstrip() + "\n" for command, flag in missing), end="")
        return 1 if missing else 0
    if not options.ours:
        parser.error("--ours is needed")
    archive = busybox_image.archive()
    ours = Engine(options.ours, archive)
    theirs = Engine(options.theirs, archive) if options.theirs else None
    tally = Tally(table)
    for case in cases:
        if not options.only or case.name in options.only:
            recorded = compare(case, ours, theirs, tally, record=options.record)
            if options.record:
                (CASES / f"{case.name}.case").write_text(text_of(recorded))
    for engine in filter(None, (ours, theirs)):
        engine.clean()
    print(tally.counts())
    if theirs and not options.only:
        print(tally.flags())
    return 1 if tally.differ else 0


if __name__ == "__main__":
    sys.exit(main())
