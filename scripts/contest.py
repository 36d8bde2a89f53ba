"""Two engines measured in turns: how each is started apart from the other and from this host, and how figures are told.

Each engine has folders, a cgroup, a network namespace and a mount namespace of its own: nothing of this host is changed,
and the rules of one do not slow the other. Single times depend on the machine and its load; the ratios are what counts.
TMPDIR says where the folders are; overlayfs must be able to lie on that file system.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import busybox_image
from leftovers import Traces, cgroups, sweep
from rich import box
from rich.console import Console
from rich.table import Table

from wharfie.client.client import Client
from wharfie.client.errors import ClientError

BIN = Path(sys.executable).parent
IMAGE = busybox_image.TAG
OURS, THEIRS = "wharfie", "dockerd"
SETTLE_SECONDS = 0.1  # an engine goes on tidying up after its answer, which must not fall into the other's turn
START_SECONDS = 60.0

console = Console(highlight=False, stderr=True)


@dataclass(frozen=True, slots=True)
class Figure:
    """One row. `aim`: of the ratio to dockerd, or with `absolute` of our own value."""

    key: str
    name: str
    unit: str
    more_is_better: bool = False
    aim: float | None = None
    absolute: bool = False


class BenchFailed(Exception):
    """A measurement that would mean nothing."""


@dataclass(slots=True)
class Contender:
    """An engine under measurement: `command` and `shim` (the name of the process beside each container) tell it apart."""

    name: str
    root: Path
    command: list[str]
    shim: str
    samples: dict[str, list[float]] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"unix://{self.root}/engine.sock"

    @property
    def cgroup(self) -> str:
        return f"/{self.root.name}"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
        return {**kept, "DOCKER_HOST": self.host, "DOCKER_CONFIG": str(self.root / "client")}

    def start(self) -> None:
        """Errors: BenchFailed with the end of its log."""
        apart = ["unshare", "--net", "--mount", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
        log = self.root / "daemon.log"
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*apart, *self.command], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(ClientError, OSError), contextlib.closing(Client(self.host)) as client:
                client.get("/version")
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise BenchFailed(f"{self.name} does not start:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.05)

    def end(self) -> None:
        """Whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(60)
        traces = Traces(self.root, self.cgroup, "")
        for folder in cgroups(traces):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        sweep(traces)
        shutil.rmtree(self.root, ignore_errors=True)

    def load_image(self) -> None:
        with contextlib.closing(Client(self.host)) as client:
            headers = {"Content-Type": "application/x-tar"}
            for _ in client.messages(
                "POST", "/images/load", {"quiet": True}, body=busybox_image.archive(), headers=headers
            ):
                pass

    def add(self, key: str, value: float) -> None:
        self.samples.setdefault(key, []).append(value)

    @contextlib.contextmanager
    def timed(self, key: str) -> Iterator[None]:
        """One sample, in milliseconds, of what is done inside, if it succeeds."""
        began = time.perf_counter()
        yield
        self.add(key, (time.perf_counter() - began) * 1000)

    def median(self, key: str) -> float:
        return statistics.median(self.samples[key])


def contenders(wanted: Sequence[str]) -> list[Contender]:
    """The engines that are here, with fresh folders. Errors: BenchFailed (one that was asked for is missing)."""
    found = []
    if OURS in wanted:
        root = Path(tempfile.mkdtemp(prefix="wharfie-bench-"))
        (root / "daemon.json").touch()
        command = [str(BIN / "wharfied"), *_common_flags(root), "--config-file", f"{root}/daemon.json"]
        found.append(Contender(OURS, root, command, "wharfie-shim"))
    if THEIRS in wanted and (program := shutil.which("dockerd")):
        root = Path(tempfile.mkdtemp(prefix="wharfie-bench-dockerd-"))
        (root / "daemon.json").write_text("{}")
        command = [program, *_common_flags(root), "--config-file", f"{root}/daemon.json"]
        found.append(Contender(THEIRS, root, command, "containerd-shim"))
    return found


def _common_flags(root: Path) -> list[str]:
    return [
        *("--data-root", f"{root}/data", "--exec-root", f"{root}/run", "--pidfile", f"{root}/pid"),
        *("--host", f"unix://{root}/engine.sock", "--cgroup-parent", f"/{root.name}"),
        *("--bip", "172.30.0.1/16", "--storage-driver", "overlay2"),
    ]


def in_turns(engines: Sequence[Contender], rounds: int) -> Iterator[Contender]:
    """Each engine once a round, in changing order."""
    for number in range(rounds):
        yield from engines if number % 2 == 0 else reversed(engines)


def document(
    engines: Sequence[Contender], figures: Sequence[Figure], client: str, rounds: int, beside: str = THEIRS
) -> dict[str, Any]:
    """All that was found, for other programs. `beside`: to whom the ratios are."""
    by_name = {engine.name: engine for engine in engines}
    ratios = {}
    if beside != OURS and by_name.keys() >= {OURS, beside}:
        ratios = {figure.key: by_name[OURS].median(figure.key) / by_name[beside].median(figure.key) for figure in figures}
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"kernel": platform.release(), "arch": platform.machine(), "cpus": os.cpu_count()},
        "python": platform.python_version(),
        "client": client,
        "rounds": rounds,
        "engines": {
            engine.name: {key: {"median": engine.median(key), "samples": values} for key, values in engine.samples.items()}
            for engine in engines
        },
        "units": {figure.key: figure.unit for figure in figures},
        "ratios": ratios,
        "aims": {figure.key: figure.aim for figure in figures if figure.aim is not None},
    }


def table(found: dict[str, Any], figures: Sequence[Figure]) -> Table:
    """For people."""
    ratios: dict[str, float] = found["ratios"]
    title = f"Medians of {found['rounds']} rounds, client {found['client']}"
    shown = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    shown.add_column("figure", no_wrap=True)
    for name in found["engines"]:
        shown.add_column(name, justify="right", no_wrap=True)
    for name in ("ratio", "aim", ""):
        shown.add_column(name, justify="right", no_wrap=True)
    for figure in figures:
        values = [found["engines"][name][figure.key]["median"] for name in found["engines"]]
        ratio = ratios.get(figure.key)
        judged = values[0] if figure.absolute and OURS in found["engines"] else ratio
        sign = "≥" if figure.more_is_better else "≤"
        aim = "" if figure.aim is None else f"{sign} {figure.aim:g}{' ' + figure.unit if figure.absolute else ''}"
        met = ""
        if figure.aim is not None and judged is not None:
            good = judged >= figure.aim if figure.more_is_better else judged <= figure.aim
            met = "[green]met[/]" if good else "[red]missed[/]"
        shown.add_row(
            figure.name,
            *(f"{_rounded(value)} {figure.unit}" for value in values),
            "" if ratio is None else f"{ratio:.2f}",
            aim,
            met,
        )
    return shown


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def report(
    engines: Sequence[Contender],
    figures: Sequence[Figure],
    *,
    client: str,
    rounds: int,
    target: str | None,
    beside: str = THEIRS,
) -> int:
    """For people, or with `target` for programs: a file, or "-". The exit status."""
    found = document(engines, figures, client, rounds, beside)
    if target == "-":
        print(json.dumps(found, indent=2))
        return 0
    if target:
        Path(target).write_text(json.dumps(found, indent=2) + "\n")
    output = Console(highlight=False)
    output.width = max(output.width, 100)  # a file has no width of its own
    output.print(table(found, figures))
    return 0


def options(description: str, *, rounds: int, names: Sequence[str] = (OURS, THEIRS)) -> argparse.ArgumentParser:
    """What each of these programs understands."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"samples of each figure (default {rounds})")
    parser.add_argument("--engine", action="append", choices=names, help="only this one; repeatable")
    parser.add_argument("--json", metavar="FILE", help="write everything that was found there too; - for standard output")
    return parser


def conduct(
    enter: Callable[[], Sequence[Contender]],
    work: Callable[[Sequence[Contender]], int],
    *,
    needs: Sequence[str] = (),
) -> int:
    """Do the work with those who enter, and end them, however that goes. The exit status: the work's, 1 for what cannot be
    measured (no root, a program of `needs` missing, a failure, which is told), 130 when interrupted."""
    missing = [program for program in needs if shutil.which(program) is None]
    if os.geteuid() != 0 or missing:
        console.print(
            f"This needs {' and '.join(missing)}." if missing else "This makes namespaces and mounts: run it as root."
        )
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    contestants = enter()
    try:
        return work(contestants)
    except (BenchFailed, ClientError, OSError) as error:
        console.print(f"[red]{error}[/]")
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for contender in contestants:
            contender.end()
