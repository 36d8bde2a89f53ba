"""Nothing is left over: after many runs, after much ado about one container, and after everything was removed.

CHURN_RUNS, CHURN_TURNS and CHURN_EXECS say how many (500, 3000 and 6000 are the whole of it). Figures are printed.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness import Daemon, until
from tests.traces import descriptors, files, proportional_size, threads, trace
from wharfie.engine.execs import KEPT_MOST

RUNS = int(os.environ.get("CHURN_RUNS", "30"))
TURNS = int(os.environ.get("CHURN_TURNS", "60"))
EXECS = int(os.environ.get("CHURN_EXECS", "40"))
KEPT_KILOBYTES = 6  # of an exec that has ended, by a generous count
THREADS_MORE = 12  # a driver's workers are made when they are first needed at once, up to a limit


@dataclass
class Figures:
    """What a daemon takes beyond its containers."""

    descriptors: int
    threads: int
    kilobytes: int

    @classmethod
    def of(cls, daemon: Daemon) -> Figures:
        pid = daemon.process.pid
        return cls(descriptors(pid), threads(pid), proportional_size(pid))


def settled_figures(daemon: Daemon, before: Figures) -> Figures:
    """Connections and threads that nobody needs any more take a moment to go."""
    with contextlib.suppress(AssertionError):
        until(lambda: Figures.of(daemon).descriptors <= before.descriptors, 20)
    return Figures.of(daemon)


def assert_no_growth(before: Figures, now: Figures, *, more: int = 0) -> None:
    """Memory: what an allocator keeps and caches fill is not told from a leak by one figure, so there is room for it."""
    assert now.descriptors <= before.descriptors + 2, (before, now)
    assert now.threads <= before.threads + THREADS_MORE, (before, now)
    assert now.kilobytes <= before.kilobytes + 8 * 1024 + more, (before, now)


@pytest.mark.timeout(60 + 3 * RUNS)
def test_many_runs_leave_nothing(make_daemon):
    daemon = make_daemon(busybox=True)
    daemon.docker("network", "create", "net")
    words = ("run", "--rm", "-v", "/anonymous", "-p", "127.0.0.1::80", "--network", "net", "busybox", "true")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: daemon.docker(*words), range(8)))
        before, paths, figures = trace(daemon), files(daemon.data), Figures.of(daemon)
        print(f"CHURN_RUNS={RUNS}: before {figures}")
        for begin in range(0, RUNS, 50):
            list(pool.map(lambda _: daemon.docker(*words), range(min(50, RUNS - begin))))
            print(f"after {min(begin + 50, RUNS)} runs: {Figures.of(daemon)}", flush=True)
    until(lambda: trace(daemon) == before and files(daemon.data) == paths, 20)
    assert_no_growth(figures, settled_figures(daemon, figures))
    assert daemon.docker("volume", "ls", "-q") == ""
    daemon.docker("network", "rm", "net")
    assert [link for link in daemon.links() if link != daemon.bridge] == []


def test_a_failed_start_leaves_nothing(make_daemon):
    daemon = make_daemon(busybox=True)
    daemon.docker("run", "--rm", "-p", "127.0.0.1::80", "busybox", "true")
    before = trace(daemon)
    for words, status in (
        (("-p", "127.0.0.1::80", "busybox", "nosuch"), 127),
        (("-u", "nosuch", "busybox", "true"), None),
        (("--ulimit", "nofile=99999999:99999999", "busybox", "true"), None),
        (("-v", "/dev/null/x:/x", "busybox", "true"), None),
        (("--sysctl", "net.no.such=1", "busybox", "true"), None),
        (("--network", "nosuch", "busybox", "true"), 125),
    ):
        result = daemon.run_docker("run", "--rm", *words)
        assert result.returncode == status or (status is None and result.returncode in (125, 126, 127)), result.stderr
        assert b"Error response from daemon" in result.stderr
    assert trace(daemon) == before
    assert daemon.docker("ps", "-aq") == ""


def test_thirty_at_once(daemon, name):
    with ThreadPoolExecutor(10) as pool:
        results = list(pool.map(lambda n: daemon.docker("run", "--rm", "busybox", "echo", str(n)), range(30)))
    assert results == [str(number) for number in range(30)]


def test_one_name_for_fifty(daemon, name):
    body = {"Image": "busybox", "Cmd": ["true"]}
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: daemon.request("POST", f"/containers/create?name={name}", body)[0], range(50)))
    assert sorted(answers) == [201] + [409] * 49


class Ado:
    """What clients do to a running container, well or badly."""

    def __init__(self, daemon: Daemon, name: str) -> None:
        self.daemon, self.name = daemon, name
        self.ways = sorted(way for way in dir(self) if way.startswith("do_"))

    def opened(self, path: str, body: str = "{}") -> socket.socket:
        """A hijacked stream, its head read."""
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(30)
        client.connect(str(self.daemon.socket))
        head = "Host: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json"
        client.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += client.recv(1)
        assert answer.startswith(b"HTTP/1.1 101"), answer
        return client

    def exec(self, *words: str, **more) -> str:
        body = {"Cmd": words, "AttachStdout": True, "AttachStderr": True, **more}
        status, made = self.daemon.request("POST", f"/containers/{self.name}/exec", body)
        assert status == 201, made
        return f"/exec/{made['Id']}"

    def do_exec(self) -> None:
        path = self.exec("echo", "hi")
        with self.opened(f"{path}/start") as client:
            assert _whole(client).endswith(b"hi\n")
        assert self.daemon.request("GET", f"{path}/json")[1]["ExitCode"] == 0

    def do_exec_with_input(self) -> None:
        with self.opened(f"{self.exec('cat', AttachStdin=True)}/start") as client:
            client.sendall(b"x" * 100_000)
            client.shutdown(socket.SHUT_WR)
            assert _whole(client).count(b"x") == 100_000

    def do_exec_terminal(self) -> None:
        path = self.exec("sh", "-c", "read x; stty size", Tty=True, AttachStdin=True)
        with self.opened(f"{path}/start", '{"Tty": true}') as client:
            until(lambda: self.daemon.request("POST", f"{path}/resize?h=11&w=22")[0] == 200)
            client.sendall(b"\n")
            assert b"11 22" in _whole(client)

    def do_exec_detached(self) -> None:
        assert self.daemon.request("POST", f"{self.exec('sleep', '0.1')}/start", {"Detach": True})[0] == 200

    def do_exec_missing(self) -> None:
        with self.opened(f"{self.exec('nosuch')}/start") as client:
            assert b"not found" in _whole(client)

    def do_exec_and_leave(self) -> None:
        self.opened(f"{self.exec('sh', '-c', 'sleep 0.2; seq 1 20000')}/start").close()

    def do_exec_never_started(self) -> None:
        self.exec("true")

    def do_exec_killed(self) -> None:
        path = self.exec("sleep", "600")
        with self.opened(f"{path}/start") as client:
            pid = until(lambda: self.daemon.request("GET", f"{path}/json")[1]["Pid"])
            os.kill(pid, signal.SIGKILL)
            assert _whole(client) == b""
        assert self.daemon.request("GET", f"{path}/json")[1]["ExitCode"] == 137

    def do_attach_and_leave(self) -> None:
        with self.opened(f"/containers/{self.name}/attach?stream=1&stdout=1&stderr=1") as client:
            assert client.recv(100)

    def do_attach_with_logs(self) -> None:
        with self.opened(f"/containers/{self.name}/attach?logs=1&stream=1&stdout=1&stdin=1") as client:
            client.sendall(b"ignored\n")
            assert client.recv(100)

    def do_follow_and_leave(self) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(self.daemon.socket))
            path = f"/containers/{self.name}/logs?stdout=1&follow=1&tail=3"
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert client.recv(100)

    def do_kill(self) -> None:
        assert self.daemon.request("POST", f"/containers/{self.name}/kill?signal=USR1")[0] == 204

    def do_look(self) -> None:
        for path in ("top", "stats?stream=0&one-shot=1", "json", "logs?stdout=1&tail=5", "changes"):
            assert self.daemon.request("GET", f"/containers/{self.name}/{path}")[0] == 200


def _whole(client: socket.socket) -> bytes:
    data = b""
    try:
        while piece := client.recv(65536):
            data += piece
    except OSError as error:
        raise AssertionError(f"{error} after {len(data)} bytes, the last are {data[-300:]!r}") from error
    return data


@pytest.mark.timeout(120 + TURNS)
def test_much_ado_leaves_nothing(make_daemon):
    daemon = make_daemon(busybox=True)
    program = "trap : USR1; i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"
    daemon.docker("run", "-d", "-i", "--name", "box", "-p", "127.0.0.1::80", "busybox", "sh", "-c", program)
    shim = int(next(daemon.run.rglob("shim.pid")).read_text())
    ado, chance = Ado(daemon, "box"), random.Random(TURNS)

    def turns(count: int) -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda way: getattr(ado, way)(), chance.choices(ado.ways, k=count)))

    def shim_descriptors() -> int:
        return descriptors(shim)

    for way in ado.ways:
        getattr(ado, way)()
    turns(12)
    until(lambda: not daemon.inspect("box")["ExecIDs"])
    time.sleep(2.5)  # an exec's client that left is forgotten after that long
    before, figures, shim_before = trace(daemon), Figures.of(daemon), (shim_descriptors(), proportional_size(shim))
    print(f"CHURN_TURNS={TURNS}: before {figures}, shim {shim_before}")
    for begin in range(0, TURNS, 300):
        turns(min(300, TURNS - begin))
        shim_now = (shim_descriptors(), proportional_size(shim))
        print(f"after {min(begin + 300, TURNS)} turns: {Figures.of(daemon)}, shim {shim_now}", flush=True)
    until(lambda: not daemon.inspect("box")["ExecIDs"])
    until(lambda: trace(daemon) == before, 20)
    until(lambda: shim_descriptors() <= shim_before[0], 20, "the shim's descriptors as before")
    assert proportional_size(shim) <= shim_before[1] + 1024
    assert len(Path(f"/proc/{shim}/task/{shim}/children").read_text().split()) == 1
    # What an exec was can be asked for afterwards.
    assert_no_growth(figures, settled_figures(daemon, figures), more=KEPT_KILOBYTES * min(TURNS, 2 * KEPT_MOST))


@pytest.mark.timeout(60 + EXECS // 10)
def test_many_execs_leave_nothing(make_daemon):
    """The daemon grows by the ended ones that it keeps, and from there on stays as it is."""
    daemon = make_daemon(busybox=True)
    daemon.docker("run", "-d", "--name", "box", "busybox", "sleep", "100000")
    ado = Ado(daemon, "box")

    def execs(count: int) -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: ado.do_exec(), range(count)))

    execs(20)
    before = Figures.of(daemon)
    first = min(EXECS, 2 * KEPT_MOST)
    execs(first)
    full = settled_figures(daemon, before)
    print(f"CHURN_EXECS={EXECS}: before {before}, after {first} {full}", flush=True)
    assert_no_growth(before, full, more=KEPT_KILOBYTES * min(first, KEPT_MOST))
    if first < EXECS:
        for begin in range(first, EXECS, 1000):
            execs(min(1000, EXECS - begin))
            print(f"after {min(begin + 1000, EXECS)}: {Figures.of(daemon)}", flush=True)
        assert settled_figures(daemon, full).kilobytes <= full.kilobytes + 2048
