"""`make bench`, first part: containers of our engine beside dockerd's, in one run, round by round in turns, so that both
meet the same weather."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from contest import (
    BIN,
    IMAGE,
    OURS,
    SETTLE_SECONDS,
    THEIRS,
    BenchFailed,
    Contender,
    Figure,
    conduct,
    console,
    contenders,
    in_turns,
    options,
    report,
)
from rich.progress import Progress

from wharfie.client.client import Client

PARALLEL, CLIENTS = 40, 8
LISTED = 100
REQUESTS = 1000

FIGURES: Sequence[Figure] = (
    Figure("run_bridge", "run --rm busybox true", "ms", aim=0.25),
    Figure("run_none", "the same, --network none", "ms", aim=0.22),
    Figure("create", "API create", "ms", aim=0.5),
    Figure("start", "API start", "ms", aim=0.1),
    Figure("wait_remove", "API wait and remove", "ms", aim=0.25),
    Figure("parallel", f"{PARALLEL} started by {CLIENTS} clients", "ms", aim=0.2),
    Figure("parallel_removed", "the same removed by force", "ms", aim=0.4),
    Figure("daemon_memory", f"daemon, {PARALLEL} running (PSS)", "MB", aim=1.2),
    Figure("shim_memory", "process beside a container (PSS)", "MB", aim=1.8, absolute=True),
    Figure("ping", "_ping, one connection", "/s", more_is_better=True, aim=0.4),
    Figure("inspect", "inspect, one connection", "/s", more_is_better=True, aim=0.6),
    Figure("list", f"list of {LISTED} containers", "ms", aim=0.6),
)


def command_line(engine: Contender, program: str) -> None:
    """The whole of what a user waits for."""
    for key, flags in (("run_bridge", ()), ("run_none", ("--network", "none"))):
        words = [program, "run", "--rm", *flags, IMAGE, "true"]
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
        with engine.timed("create"):
            made = client.post("/containers/create", {"Image": IMAGE, "Cmd": ["true"]})["Id"]
        with engine.timed("start"):
            client.post(f"/containers/{made}/start")
        with engine.timed("wait_remove"):
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
            with engine.timed("parallel"):
                list(pool.map(start, ids))
            time.sleep(1)
            _memory(engine)
            with engine.timed("parallel_removed"):
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


def asked(engine: Contender, key: str, path: str) -> None:
    """Requests a second, one after the other; the client is a bare socket, so the engine is what is measured."""
    request = f"GET {path} HTTP/1.1\r\nHost: engine\r\n\r\n".encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(engine.host.removeprefix("unix://"))
        began = time.perf_counter()
        for _ in range(REQUESTS):
            connection.sendall(request)
            answer = b""
            while not _is_whole(answer):
                more = connection.recv(1 << 16)
                if not more:
                    raise BenchFailed(f"{engine.name} closed the connection within its answer to {path}")
                answer += more
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise BenchFailed(f"{engine.name} answered {path} with {answer[:200]!r}")
        engine.add(key, REQUESTS / (time.perf_counter() - began))


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return bool(end) and (len(body) >= int(length[1]) if length else body.endswith(b"\r\n0\r\n\r\n"))


def pings(engine: Contender) -> None:
    asked(engine, "ping", "/_ping")


def inspections(engine: Contender) -> None:
    """Of a container that never ran."""
    with contextlib.closing(Client(engine.host)) as client:
        made = client.post("/containers/create", {"Image": IMAGE, "Cmd": ["true"]})["Id"]
        asked(engine, "inspect", f"/containers/{made}/json")
        client.delete(f"/containers/{made}")


def make_listed(engine: Contender) -> None:
    with contextlib.closing(Client(engine.host)) as client:
        for _ in range(LISTED):
            client.post("/containers/create", {"Image": IMAGE, "Cmd": ["true"]})


def lists(engine: Contender) -> None:
    with contextlib.closing(Client(engine.host)) as client:
        _ = client.version
        with engine.timed("list"):
            found = client.get("/containers/json", {"all": True})
        if len(found) != LISTED:
            raise BenchFailed(f"{engine.name} lists {len(found)} containers, not {LISTED}")


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


def measure(engines: Sequence[Contender], program: str, rounds: int) -> None:
    """Every figure in turns. Errors: BenchFailed, ClientError."""
    fewer = max(1, rounds // 5)
    plan: list[tuple[str, int, Callable[[Contender], None]]] = [
        ("command line", rounds, lambda engine: command_line(engine, program)),
        ("a container's life", rounds, life_by_api),
        ("many at once", fewer, many_at_once),
        ("pings", rounds, pings),
        ("inspections", rounds, inspections),
        ("containers to be listed", 1, make_listed),
        ("lists", rounds, lists),
    ]
    with Progress(console=console, transient=True) as progress:
        for name, times, step in plan:
            task = progress.add_task(name, total=times * len(engines))
            for engine in in_turns(engines, times):
                step(engine)
                progress.advance(task)


def warm_up(engines: Sequence[Contender], program: str) -> None:
    """The first container of an engine loads drivers and code: that is not what is measured."""
    for engine in engines:
        command_line(engine, program)
        life_by_api(engine)
        engine.samples.clear()


def work(engines: Sequence[Contender], rounds: int, target: str | None) -> int:
    """All of it. Errors: BenchFailed, ClientError."""
    program = shutil.which("docker") or str(BIN / "wharfie")
    if not any(engine.name == THEIRS for engine in engines):
        console.print("There is no dockerd in PATH, hence no ratio: single times say little.")
    for engine in engines:
        engine.start()
        engine.load_image()
    warm_up(engines, program)
    measure(engines, program, rounds)
    return report(engines, FIGURES, client=Path(program).name, rounds=rounds, target=target)


def main() -> int:
    arguments = options("Our engine beside dockerd, if one is installed.", rounds=15).parse_args()
    return conduct(
        partial(contenders, arguments.engine or (OURS, THEIRS)),
        partial(work, rounds=arguments.rounds, target=arguments.json),
    )


if __name__ == "__main__":
    sys.exit(main())
