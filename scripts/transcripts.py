"""Transcripts: shell lines with the docker command line and what they print, as files that can be run again anywhere.

    # What the case is about.
    # replace: REGULAR EXPRESSION => TEXT
    $ docker create --name box busybox true
    id1
    $ docker start nosuch
    2| Error response from daemon: No such container: nosuch
    [1]
    $ docker create --annotation a=b busybox
    id2
    ~ why another engine may answer otherwise

`$` begins a line of the shell, `>` goes on with it. Then follow what it writes to its output, what it writes to its errors
behind `2|`, and its exit status unless that is 0. All lines of a case run in one shell, in an empty folder of its own.
Before anything is compared, what differs from run to run is replaced: ids by their number of appearance, times, ages,
addresses.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

IMAGE = "busybox:latest"
_SECONDS = 100


@dataclass(frozen=True, slots=True)
class Step:
    line: str  # what the shell gets, one or several lines
    expected: tuple[str, ...]
    difference: str = ""  # why another engine may answer otherwise


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    comments: tuple[str, ...]
    steps: tuple[Step, ...]

    @property
    def replacements(self) -> list[tuple[re.Pattern[str], str]]:
        found = (re.fullmatch(r"# replace: (.+) => (.*)", comment) for comment in self.comments)
        return [(re.compile(match[1], re.MULTILINE), match[2]) for match in found if match]


def read(path: Path) -> Case:
    """Raises ValueError naming the file and the line when it is no transcript."""
    comments: list[str] = []
    steps: list[Step] = []
    for number, text in enumerate(path.read_text().splitlines(), 1):
        if text.startswith("$ "):
            steps.append(Step(text[2:], ()))
        elif not steps:
            if text and not text.startswith("#"):
                raise ValueError(f"{path.name}, line {number}: before the first `$` there are only comments")
            comments.append(text)
        elif text.startswith("> ") and not steps[-1].expected:
            steps[-1] = replace(steps[-1], line=f"{steps[-1].line}\n{text[2:]}")
        elif text.startswith("~ "):
            steps[-1] = replace(steps[-1], difference=text[2:])
        else:
            steps[-1] = replace(steps[-1], expected=(*steps[-1].expected, text))
    return Case(path.stem, tuple(comments), tuple(steps))


def read_all(folder: Path) -> list[Case]:
    return [read(path) for path in sorted(folder.glob("*.case"))]


def text_of(case: Case) -> str:
    """The file's content again."""
    lines = [*case.comments]
    for step in case.steps:
        first, *more = step.line.split("\n")
        lines += [f"$ {first}", *(f"> {line}" for line in more), *step.expected]
        lines += [f"~ {step.difference}"] if step.difference else []
    return "\n".join(lines) + "\n"


def run(case: Case, environment: Mapping[str, str], data_root: str) -> list[tuple[str, ...]]:
    """What each step printed, ready to be compared. `environment` says where the engine is, `data_root` where its files."""
    with tempfile.TemporaryDirectory(prefix="transcript-") as scratch:
        results, work = Path(scratch, "results"), Path(scratch, "work")
        results.mkdir()
        work.mkdir()
        script = "".join(
            f"{{\n{step.line}\n}} >{results}/{number}.out 2>{results}/{number}.err\necho $? >{results}/{number}.status\n"
            for number, step in enumerate(case.steps)
        )
        process = subprocess.Popen(
            ["/bin/sh", "-c", script],
            cwd=work,
            env={"PATH": os.environ["PATH"], "HOME": str(work), "LC_ALL": "C.UTF-8", **environment},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(_SECONDS)
        except subprocess.TimeoutExpired:  # the steps that it did not come to read "not run"
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        wipe = Normaliser(case.replacements, {str(work): "FOLDER", data_root: "ROOT"})
        return [_outcome(results, number, wipe) for number in range(len(case.steps))]


def _outcome(results: Path, number: int, wipe: Normaliser) -> tuple[str, ...]:
    wipe.next_step()
    out, errors, status = (_content(results / f"{number}.{kind}") for kind in ("out", "err", "status"))
    lines = [*map(_kept, wipe(out).splitlines()), *(f"2| {line}".rstrip() for line in wipe(errors).splitlines())]
    return tuple(lines if status == "0\n" else [*lines, f"[{status.strip() or 'not run'}]"])


def _content(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _kept(line: str) -> str:
    """A line of output that would read as something else in the file."""
    return f" {line}" if line.startswith(("$ ", "> ", "~ ", "2| ")) else line


class Normaliser:
    """Replaces what differs from run to run. Equal ids of a step get equal numbers, equal networks of a case too."""

    def __init__(self, replacements: Sequence[tuple[re.Pattern[str], str]], fixed: Mapping[str, str]) -> None:
        self._own, self._fixed = replacements, fixed
        self._ids: dict[str, int] = {}
        self._networks: dict[str, int] = {}

    def next_step(self) -> None:
        self._ids.clear()

    def __call__(self, text: str) -> str:
        for known, name in self._fixed.items():
            text = text.replace(known, name)
        for pattern, name in self._own:
            text = pattern.sub(name, text)
        for pattern, name in _CHANGING:
            text = pattern.sub(name, text)
        text = _ID.sub(self._id, text)
        return _ADDRESS.sub(self._address, text)

    def _id(self, match: re.Match[str]) -> str:
        number = self._ids.setdefault(match[0][:12], len(self._ids) + 1)
        return f"{'ID' if len(match[0]) == 64 else 'id'}{number}"

    def _address(self, match: re.Match[str]) -> str:
        number = self._networks.setdefault(match[1], len(self._networks) + 1)
        return f"net{number}.{match[2]}"


_ID = re.compile(r"\b(?:[0-9a-f]{64}|(?=[0-9]*[a-f])[0-9a-f]{12})\b")
# Addresses of pools, which differ from daemon to daemon; those that a case names itself are of 10.215.
_ADDRESS = re.compile(r"\b(10\.(?!215\.)\d+\.\d+)\.(\d+)\b")
_CHANGING: Sequence[tuple[re.Pattern[str], str]] = [
    (re.compile(r"(?!0001)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)"), "TIME"),
    (re.compile(r"(?!0001)\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? [+-]\d{4} [A-Z]+"), "TIME"),
    (re.compile(r"\b(?:Less than a|About an?|\d+) (?:second|minute|hour)s?\b"), "AGE"),
    (re.compile(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b"), "MAC"),
    (re.compile(r"\b(0\.0\.0\.0|127\.0\.0\.1|\[::1?\]):(?:3[2-9]|[45]\d)\d{3}\b"), r"\1:PORT"),
    (re.compile(r"[ \t]+$", re.MULTILINE), ""),
    (re.compile(r"(?<=\S)(?: {2,}|\t)(?=\S)"), "  "),
]
