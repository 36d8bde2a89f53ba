"""`make bench`: our engine beside dockerd, in one run, round by round in turns, so that both meet the same weather.

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
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import busybox_image
from leftovers import Traces, cgroups, sweep
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from wharfie.client.client import Client
from wharfie.client.errors import ClientError

BIN = Path(sys.executable).parent
IMAGE = busybox_image.TAG
OURS, THEIRS = "wharfie", "dockerd"
PARALLEL, CLIENTS = 40, 8
LISTED = 100
PINGS = 1000
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


FIGURES: Sequence[Figure] = (
    Figure("run_bridge", "run --rm busybox true", "ms", aim=0.35),
    Figure("run_none", "the same, --network none", "ms", aim=0.35),
    Figure("create", "API create", "ms"),
    Figure("start", "API start", "ms", aim=0.15),
    Figure("wait_remove", "API wait and remove", "ms"),
    Figure("parallel", f"{PARALLEL} started by {CLIENTS} clients", "ms", aim=0.2),
    Figure("parallel_removed", "the same removed by force", "ms", aim=0.4),
    Figure("daemon_memory", f"daemon, {PARALLEL} running (PSS)", "MB", aim=1.2),
    Figure("shim_memory", "process beside a container (PSS)", "MB", aim=1.8, absolute=True),
    Figure("ping", "_ping, one connection", "/s", more_is_better=True, aim=0.3),
    Figure("list", f"list of {LISTED} containers", "ms", aim=0.6),
)


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


# ---- what is measured


def command_line(engine: Contender, program: str) -> None:
    """The whole of what a user waits for."""
    for key, options in (("run_bridge", ()), ("run_none", ("--network", "none"))):
        words = [program, "run", "--rm", *options, IMAGE, "true"]
        began = time.perf_counter()
        result = subprocess.run(words, env=engine.environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        engine.add(key, (time.perf_counter() - began) * 1000)
        if result.returncode != 0:
            raise BenchFailed(f"{engine.name}: {' '.join(words)}: {result.stderr.decode(errors='replace')}")
        time.sleep(SETTLE_SECONDS)


def life_by_api(engine: Contender) -> None:
    """Create, start, wait, remove, each call's latency on a connection that is there."""
    with contextlib.closing(Client(engine.host)) as client:
        _ = client.version
        with _timed(engine, "create"):
            made = client.post("/containers/create", {"Image": IMAGE, "Cmd": ["true"]})["Id"]
        with _timed(engine, "start"):
            client.post(f"/containers/{made}/start")
        with _timed(engine, "wait_remove"):
            status = client.post(f"/containers/{made}/wait")["StatusCode"]
            client.delete(f"/containers/{made}")
        if status != 0:
            raise BenchFailed(f"{engine.name}: the container ended with {status}")
    time.sleep(SETTLE_SECONDS)


def many_at_once(engine: Contender) -> None:
    """Starts of containers that were made before, by clients side by side; what they cost in memory; their removal."""
    with contextlib.closing(Client(engine.host)) as client:
        body = {"Image": IMAGE, "Cmd": ["sleep", "3600"]}
        ids = [client.post("/containers/create", body)["Id"] for _ in range(PARALLEL)]

        def start(id: str) -> None:
            with contextlib.closing(Client(engine.host)) as own:
                own.post(f"/containers/{id}/start")

        def remove(id: str) -> None:
            with contextlib.closing(Client(engine.host)) as own:
                own.delete(f"/containers/{id}", {"force": True})

        with ThreadPoolExecutor(CLIENTS) as pool:
            with _timed(engine, "parallel"):
                list(pool.map(start, ids))
            time.sleep(1)
            _memory(engine)
            with _timed(engine, "parallel_removed"):
                list(pool.map(remove, ids))
    time.sleep(1)


def _memory(engine: Contender) -> None:
    assert engine.process is not None
    shims, rest = [], 0.0
    for pid, name in _descendants(engine.process.pid):
        if name.startswith(engine.shim):
            shims.append(_proportional_size(pid))
        elif name != "sleep":
            rest += _proportional_size(pid)
    if len(shims) != PARALLEL:
        raise BenchFailed(f"{engine.name}: {len(shims)} processes are called {engine.shim}, not {PARALLEL}")
    engine.add("shim_memory", statistics.median(shims))
    engine.add("daemon_memory", rest)


def pings(engine: Contender) -> None:
    """Requests a second, one after the other; the client is a bare socket, so the engine is what is measured."""
    request = b"GET /_ping HTTP/1.1\r\nHost: engine\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(engine.host.removeprefix("unix://"))
        began = time.perf_counter()
        for _ in range(PINGS):
            connection.sendall(request)
            answer = connection.recv(4096)
            while not answer.endswith(b"\r\n\r\nOK"):
                more = connection.recv(4096)
                if not more:
                    raise BenchFailed(f"{engine.name} answered {answer!r} and closed the connection")
                answer += more
        engine.add("ping", PINGS / (time.perf_counter() - began))


def make_listed(engine: Contender) -> None:
    with contextlib.closing(Client(engine.host)) as client:
        for _ in range(LISTED):
            client.post("/containers/create", {"Image": IMAGE, "Cmd": ["true"]})


def lists(engine: Contender) -> None:
    with contextlib.closing(Client(engine.host)) as client:
        _ = client.version
        with _timed(engine, "list"):
            found = client.get("/containers/json", {"all": True})
        if len(found) != LISTED:
            raise BenchFailed(f"{engine.name} lists {len(found)} containers, not {LISTED}")


@contextlib.contextmanager
def _timed(engine: Contender, key: str) -> Iterator[None]:
    """Milliseconds."""
    began = time.perf_counter()
    yield
    engine.add(key, (time.perf_counter() - began) * 1000)


def _descendants(top: int) -> Iterator[tuple[int, str]]:
    """`top`, the processes below it, and those that have left their parent but not the daemon's network namespace."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    namespaces: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, ValueError):
                head, _, tail = (entry / "stat").read_text().rpartition(")")
                pid = int(entry.name)
                names[pid] = head.partition("(")[2]
                parents[pid] = int(tail.split()[1])
                namespaces[pid] = str((entry / "ns" / "net").readlink())
    home = namespaces[top]
    for pid, name in names.items():
        ancestor = pid
        while ancestor not in (0, top):
            ancestor = parents.get(ancestor, 0)
        if ancestor == top or namespaces.get(pid) == home:
            yield pid, name


def _proportional_size(pid: int) -> float:
    """MB; pages shared by n processes count 1/n (proc(5), smaps_rollup)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


# ---- the run


def measure(engines: Sequence[Contender], program: str, rounds: int) -> None:
    """Every figure in turns. Errors: BenchFailed, ClientError."""
    fewer = max(1, rounds // 5)
    plan: list[tuple[str, int, Callable[[Contender], None]]] = [
        ("command line", rounds, lambda engine: command_line(engine, program)),
        ("a container's life", rounds, life_by_api),
        ("many at once", fewer, many_at_once),
        ("pings", rounds, pings),
        ("containers to be listed", 1, make_listed),
        ("lists", rounds, lists),
    ]
    with Progress(console=console, transient=True) as progress:
        for name, times, step in plan:
            task = progress.add_task(name, total=times * len(engines))
            for number in range(times):
                for engine in engines if number % 2 == 0 else reversed(engines):
                    step(engine)
                    progress.advance(task)


def warm_up(engines: Sequence[Contender], program: str) -> None:
    """The first container of an engine loads drivers and code: that is not what is measured."""
    for engine in engines:
        command_line(engine, program)
        life_by_api(engine)
        engine.samples.clear()


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


def main() -> int:
    parser = argparse.ArgumentParser(description="Our engine beside dockerd, if one is installed.")
    parser.add_argument("--rounds", type=int, default=15, help="samples of each figure (default 15)")
    parser.add_argument("--engine", action="append", choices=(OURS, THEIRS), help="only this one; repeatable")
    parser.add_argument("--json", metavar="FILE", help="write everything that was found there too; - for standard output")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        console.print("Engines make namespaces, mounts and network devices: run this as root.")
        return 1
    program = shutil.which("docker") or str(BIN / "wharfie")
    engines = contenders(arguments.engine or (OURS, THEIRS))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if not any(engine.name == THEIRS for engine in engines):
            console.print("There is no dockerd in PATH, hence no ratio: single times say little.")
        for engine in engines:
            engine.start()
            engine.load_image()
        warm_up(engines, program)
        measure(engines, program, arguments.rounds)
        return report(engines, FIGURES, client=Path(program).name, rounds=arguments.rounds, target=arguments.json)
    except (BenchFailed, ClientError, OSError) as error:
        console.print(f"[red]{error}[/]")
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for engine in engines:
            engine.end()


if __name__ == "__main__":
    sys.exit(main())
