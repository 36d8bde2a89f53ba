"""SIGKILL at random instants: of the daemon, the zygote, a shim, a container's first process, in the middle of everything.
The maker is the shim's child that makes a container, until it ends and leaves that first process behind.

CAMPAIGN_INSTANTS says how many (50 is the whole campaign), CAMPAIGN_SEED makes one again. What was done is printed.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness import Daemon, until
from tests.traces import names, trace

INSTANTS = int(os.environ.get("CAMPAIGN_INSTANTS", "8"))
SEED = int(os.environ.get("CAMPAIGN_SEED", "0")) or random.randrange(1, 1 << 30)
OPERATIONS = ("create", "start", "exec", "stop", "remove")
VICTIMS = ("daemon", "zygote", "shim", "init", "maker")
NOT_THERE = {(operation, "maker") for operation in OPERATIONS if operation != "start"}
NOT_THERE |= {("create", "shim"), ("create", "init")}
PATIENCE = 30.0
MAY_BE = {
    ("create", True): {"created"},
    ("create", False): {"created", "gone"},
    ("start", True): {"running"},
    ("start", False): {"created", "running", "exited"},
    ("exec", True): {"running"},
    ("exec", False): {"running"},
    ("stop", True): {"exited"},
    ("stop", False): {"running", "exited"},
    ("remove", True): {"gone"},
    ("remove", False): {"running", "exited", "gone"},
}
"""By operation and whether the daemon said that it was done."""
PROGRAM = "trap 'exit 7' TERM; while :; do sleep 0.05; done"


@dataclass
class Target:
    """The container that an operation is about, and what it says of it."""

    daemon: Daemon
    name: str
    id: str = ""

    def make(self) -> int:
        body = {"Image": "busybox", "Cmd": ["sh", "-c", PROGRAM], "HostConfig": {"PortBindings": {"80/tcp": [{}]}}}
        status, answer = self.daemon.request("POST", f"/containers/create?name={self.name}", body)
        self.id = answer.get("Id", "")
        return status

    def ask(self, method: str, path: str) -> int:
        return self.daemon.request(method, f"/containers/{self.name}{path}")[0]

    def exec(self) -> int:
        status, made = self.daemon.request("POST", f"/containers/{self.name}/exec", {"Cmd": ["true"], "AttachStdout": True})
        if status != 201:
            return status
        return self.daemon.request("POST", f"/exec/{made['Id']}/start", {"Detach": False})[0]

    def prepare(self, operation: str) -> None:
        """Whatever must be there before."""
        if operation != "create":
            assert self.make() == 201
        if operation in ("exec", "stop", "remove"):
            assert self.ask("POST", "/start") == 204

    def perform(self, operation: str) -> int:
        """The status, 0 when the daemon went away meanwhile."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            if operation == "create":
                return self.make()
            if operation == "exec":
                return self.exec()
            if operation == "remove":
                return self.ask("DELETE", "?force=1")
            return self.ask("POST", f"/{operation}")
        return 0

    def state(self) -> dict | None:
        status, document = self.daemon.request("GET", f"/containers/{self.name}/json")
        if status == 404:
            return None
        self.id = document["Id"]
        return document["State"]

    # Who can be killed

    def victim(self, kind: str) -> int:
        """Its pid, 0 when it is not there (yet)."""
        if kind == "daemon":
            return self.daemon.process.pid
        if kind == "zygote":
            return _child(self.daemon.process.pid, "wharfie-zygote")
        folder = self.daemon.run / "runtime" / "native" / self.id
        with contextlib.suppress(OSError, ValueError):
            shim = int((folder / "shim.pid").read_text())
            if kind == "shim":
                return shim
            if kind == "init":
                return int(json.loads((folder / "state.json").read_text())["pid"])
            return _child(shim)
        return 0


def _child(parent: int, name: str = "") -> int:
    with contextlib.suppress(OSError):
        for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            with contextlib.suppress(OSError):
                if not name or Path(f"/proc/{pid}/comm").read_text().strip() == name:
                    return int(pid)
    # A daemon has threads, any of which may be the parent.
    for task in Path(f"/proc/{parent}/task").glob("*/children") if name else ():
        with contextlib.suppress(OSError):
            for pid in task.read_text().split():
                if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                    return int(pid)
    return 0


def _strike(target: Target, kind: str, operation: Future[int], delay: float) -> bool:
    """Kill `kind` after `delay` seconds, or as soon as it is there; False when the operation was over before it was."""
    end = time.monotonic() + delay
    while time.monotonic() < end:
        time.sleep(0.0005)
    while not (pid := target.victim(kind)):
        if operation.done():
            return False
        time.sleep(0.0005)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return True


def _spans(daemon: Daemon) -> dict[str, float]:
    """How long each operation takes here and now."""
    spans = {}
    for operation in OPERATIONS:
        target = Target(daemon, f"span-{operation}")
        target.prepare(operation)
        began = time.monotonic()
        assert target.perform(operation) in (200, 201, 204)
        spans[operation] = time.monotonic() - began
        target.perform("remove")
    return spans


def _answer(operation: Future[int], daemon: Daemon) -> int:
    """The daemon answers whatever was killed."""
    try:
        return operation.result(PATIENCE)
    except TimeoutError:
        raise AssertionError(f"no answer in {PATIENCE:.0f} s:\n{daemon.log_tail(60)}") from None


def _check(target: Target, operation: str, victim: str, status: int) -> str:
    """The state becomes one that may be, and is what it says; in words."""
    may = MAY_BE[operation, 200 <= status < 300]
    if victim in ("shim", "init"):
        may = (may - {"running"}) | {"exited"}  # the container went with it
    if victim == "maker":
        may = may | {"exited"}

    def is_true() -> bool:
        nonlocal state
        state = target.state()
        if state is None or state["Status"] not in may:
            return state is None
        return _runs(target) if state["Running"] else _is_clear(target)

    state = None
    try:
        until(is_true, PATIENCE)
    except AssertionError:
        raise AssertionError(f"{operation} with {victim} killed: {state}, may be {may}") from None
    if state is None:
        assert "gone" in may
        return "gone"
    if state["Status"] == "exited":
        assert state["ExitCode"] in ((7, 137) if operation == "stop" else (127, 128, 137)), state
    return f"{state['Status']} {state['ExitCode']}"


def _runs(target: Target) -> bool:
    return target.exec() == 200


def _is_clear(target: Target) -> bool:
    """Nothing of it runs or is left."""
    return target.id not in names(target.daemon.run / "runtime" / "native") and not any(
        target.id in path for path in target.daemon.cgroups()
    )


def _nothing_left(daemon: Daemon, before: dict) -> None:
    end = time.monotonic() + PATIENCE
    while (now := trace(daemon)) != before and time.monotonic() < end:
        time.sleep(0.1)
    assert {key: value for key, value in now.items() if value != before[key]} == {}


@pytest.mark.timeout(60 + 30 * INSTANTS)
def test_killed_at_random_instants(make_daemon):
    chance = random.Random(SEED)
    print(f"CAMPAIGN_SEED={SEED} CAMPAIGN_INSTANTS={INSTANTS}")
    daemon = make_daemon(busybox=True)
    counter = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"
    daemon.docker("run", "-d", "--name", "bystander", "-p", "127.0.0.1::80", "busybox", "sh", "-c", counter)
    bystander = daemon.inspect("bystander")["State"]
    spans = _spans(daemon)
    before = trace(daemon)
    pairs = [pair for pair in itertools.product(OPERATIONS, VICTIMS) if pair not in NOT_THERE]
    chance.shuffle(pairs)
    with ThreadPoolExecutor(1) as pool:
        for number, (operation, victim) in enumerate(itertools.islice(itertools.cycle(pairs), INSTANTS)):
            began = time.monotonic()
            target = Target(daemon, f"target{number}")
            target.prepare(operation)
            delay = chance.uniform(0, spans[operation])
            under_way = pool.submit(target.perform, operation)
            struck = _strike(target, victim, under_way, delay)
            if victim == "daemon":
                daemon.kill()  # collects it
            print(f"{operation}: {victim if struck else 'nobody'} killed after {delay * 1000:.1f} ms", end=": ", flush=True)
            status = _answer(under_way, daemon)
            assert status != 404, "it is there"
            if victim == "daemon":
                daemon.start()
            print(f"status {status}", end=", ", flush=True)
            print(_check(target, operation, victim if struck else "nobody", status), end="", flush=True)
            assert target.perform("remove") in (204, 404)
            assert daemon.docker("run", "--rm", "busybox", "echo", "on") == "on"
            _nothing_left(daemon, before)
            print(f" ({time.monotonic() - began:.1f} s)", flush=True)
    state = daemon.inspect("bystander")["State"]
    assert (state["Running"], state["Pid"]) == (True, bystander["Pid"])
    daemon.docker("stop", "-t", "0", "bystander")
    lines = daemon.docker("logs", "bystander").split()
    assert lines == [str(line) for line in range(1, len(lines) + 1)]
