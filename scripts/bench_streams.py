"""`make bench`, fourth part: what flows in and out of containers, by our engine beside dockerd. Processes in a running
container, logs written and read, output to an attached client, files copied.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
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
    contenders,
    in_turns,
    options,
    report,
)

from wharfie.client.client import Client

MEGABYTE = 1_000_000
LOGGED, ATTACHED, COPIED = 200, 300, 100
"""Megabytes."""
FILES = 2000
EXECS_A_ROUND = 10
_LINE = "x" * 99

FIGURES: Sequence[Figure] = (
    Figure("exec", "exec of true in the API", "ms", aim=0.25),
    Figure("log_write", f"{LOGGED} MB of lines into json-file", "ms", aim=0.5),
    Figure("log_read", "logs of these", "ms", aim=0.15),
    Figure("attach", f"{ATTACHED} MB to an attached client, no log", "ms", aim=1.0),
    Figure("copy_in", f"cp of {COPIED} MB in", "ms", aim=1.0),
    Figure("copy_out", "the same out", "ms", aim=1.0),
    Figure("copy_in_many", f"cp of {FILES} files in", "ms", aim=0.3),
    Figure("copy_out_many", "the same out", "ms", aim=1.0),
)


class Bench:
    """One engine's turn of each figure. `part`: of the amounts, 1 for all."""

    def __init__(self, program: str, folder: Path, part: float) -> None:
        self._program = program
        self._folder = folder
        self._part = part
        (folder / "many").mkdir()
        (folder / "big").write_bytes(os.urandom(int(COPIED * MEGABYTE * part)))
        for number in range(max(1, int(FILES * part))):
            (folder / "many" / f"{number:04d}").write_bytes(os.urandom(1000))

    def execs(self, engine: Contender) -> None:
        """Create, start, the stream to its end, inspect."""
        with contextlib.closing(Client(engine.host)) as client, _running(client, ["sleep", "3600"]) as box:
            for _ in range(EXECS_A_ROUND):
                began = time.perf_counter()
                body = {"Cmd": ["true"], "AttachStdout": True, "AttachStderr": True}
                made = client.post(f"/containers/{box}/exec", body)["Id"]
                stream = client.hijack(f"/exec/{made}/start", body={"Detach": False, "Tty": False})
                while stream.sock.recv(65536):
                    pass
                stream.close()
                code = client.get(f"/exec/{made}/json")["ExitCode"]
                engine.add("exec", (time.perf_counter() - began) * 1000)
                if code != 0:
                    raise BenchFailed(f"{engine.name}: exec of true ended with {code}")
        time.sleep(SETTLE_SECONDS)

    def logs(self, engine: Contender) -> None:
        """Lines of a hundred bytes, from a file of which the container has a thousandth."""
        size = int(LOGGED * self._part) * MEGABYTE
        lines = f"yes {_LINE} | head -n {MEGABYTE // 100} > /lines"
        command = f"{lines}; read x; i={size // MEGABYTE}; while [ $i -gt 0 ]; do cat /lines; i=$((i-1)); done"
        host = {"LogConfig": {"Type": "json-file", "Config": {}}}
        with contextlib.closing(Client(engine.host)) as client:
            body = {"Image": IMAGE, "Cmd": ["sh", "-c", command], "HostConfig": host, "OpenStdin": True, "StdinOnce": True}
            box = client.post("/containers/create", body)["Id"]
            stream = client.hijack(f"/containers/{box}/attach", {"stream": True, "stdin": True})
            client.post(f"/containers/{box}/start")
            time.sleep(1)  # it has made its file by then
            began = time.perf_counter()
            stream.sock.sendall(b"\n")
            status = client.post(f"/containers/{box}/wait")["StatusCode"]
            engine.add("log_write", (time.perf_counter() - began) * 1000)
            stream.close()
            if status != 0:
                raise BenchFailed(f"{engine.name}: the writer ended with {status}")
            self._timed(engine, "log_read", "logs", box, expected=size)
            client.delete(f"/containers/{box}", {"force": True})
        time.sleep(SETTLE_SECONDS)

    def attach(self, engine: Contender) -> None:
        """Zeros, since lines are not what this is about."""
        blocks = int(ATTACHED * self._part) * 16
        command = f"exec dd if=/dev/zero bs=64k count={blocks} 2>/dev/null"
        words = ("run", "--rm", "--log-driver", "none", IMAGE, "sh", "-c", command)
        self._timed(engine, "attach", *words, expected=blocks * 65536)
        time.sleep(SETTLE_SECONDS)

    def copies(self, engine: Contender) -> None:
        """In, and out again to a folder that is emptied."""
        with contextlib.closing(Client(engine.host)) as client, _running(client, ["sleep", "3600"]) as box:
            for name, key in (("big", ""), ("many", "_many")):
                self._timed(engine, f"copy_in{key}", "cp", str(self._folder / name), f"{box}:/root/")
                with tempfile.TemporaryDirectory(dir=self._folder) as target:
                    self._timed(engine, f"copy_out{key}", "cp", f"{box}:/root/{name}", target)
                    copied = Path(target, name)
                    source = self._folder / name
                    if copied.is_dir() and len(list(copied.iterdir())) != len(list(source.iterdir())):
                        raise BenchFailed(f"{engine.name}: cp brought back fewer files than it took")
                    if copied.is_file() and copied.stat().st_size != source.stat().st_size:
                        raise BenchFailed(f"{engine.name}: cp brought back less than it took")
        time.sleep(SETTLE_SECONDS)

    def _timed(self, engine: Contender, key: str, *words: str, expected: int | None = None) -> None:
        """A whole command of the client; with `expected`, that many bytes of output."""
        with tempfile.TemporaryFile(dir=self._folder) as output:
            began = time.perf_counter()
            result = subprocess.run(
                [self._program, *words],
                env=engine.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE,
                check=False,
            )
            engine.add(key, (time.perf_counter() - began) * 1000)
            size = os.fstat(output.fileno()).st_size
        if result.returncode != 0 or (expected is not None and size != expected):
            complaint = result.stderr.decode(errors="replace")[-500:]
            raise BenchFailed(f"{engine.name}: {' '.join(words)}: {size} bytes, not {expected}: {complaint}")


@contextlib.contextmanager
def _running(client: Client, command: Sequence[str]) -> Iterator[str]:
    box: str = client.post("/containers/create", {"Image": IMAGE, "Cmd": command})["Id"]
    try:
        client.post(f"/containers/{box}/start")
        yield box
    finally:
        client.delete(f"/containers/{box}", {"force": True})


def measure(engines: Sequence[Contender], bench: Bench, rounds: int) -> None:
    """Every figure in turns. Errors: BenchFailed, ClientError."""
    plan: Sequence[tuple[int, Callable[[Contender], None]]] = (
        (rounds, bench.execs),
        (max(1, rounds // 2), bench.logs),
        (max(1, rounds // 2), bench.attach),
        (rounds, bench.copies),
    )
    for engine in engines:  # the first of an engine loads drivers and code: that is not what is measured
        bench.execs(engine)
        engine.samples.clear()
    for times, step in plan:
        for engine in in_turns(engines, times):
            step(engine)


def work(engines: Sequence[Contender], arguments: argparse.Namespace) -> int:
    """All of it. Errors: BenchFailed, ClientError."""
    program = shutil.which("docker") or str(BIN / "wharfie")
    with tempfile.TemporaryDirectory(prefix="wharfie-bench-files-") as folder:
        bench = Bench(program, Path(folder), arguments.part)
        for engine in engines:
            engine.start()
            engine.load_image()
        measure(engines, bench, arguments.rounds)
    return report(engines, FIGURES, client=Path(program).name, rounds=arguments.rounds, target=arguments.json)


def main() -> int:
    parser = options("Streams and copies: our engine beside dockerd, if one is installed.", rounds=6)
    parser.add_argument("--part", type=float, default=1.0, help="of the amounts, to try this out (default 1)")
    arguments = parser.parse_args()
    return conduct(partial(contenders, arguments.engine or (OURS, THEIRS)), partial(work, arguments=arguments))


if __name__ == "__main__":
    sys.exit(main())
