"""The real daemon with every driver in a process of its own: the stock CLI sees no difference, also when one is killed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Daemon, import_busybox, running, until

EVERY = [
    "storage.overlay2",
    "runtime.native",
    "network.bridge",
    "ipam.default",
    "volume.local",
    "log.json-file",
    "registry.oci",
]
pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    config = {"drivers": {name: {"isolate": True} for name in EVERY}}
    with running(Daemon(tmp_path_factory.mktemp("alone"), config=config)) as daemon:
        import_busybox(daemon)
        yield daemon


def host_of(daemon: Daemon, name: str) -> int:
    """Pid of a driver's process, by the daemon's children."""
    assert daemon.process is not None
    for task in Path(f"/proc/{daemon.process.pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # threads and children come and go
            for pid in (task / "children").read_text().split():
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
                if words[-2:-1] == [name] and "wharfie.plugins.host" in words:
                    return int(pid)
    return 0


def kill(daemon: Daemon, name: str) -> None:
    """Kill a driver's process and wait until the next one serves."""
    first = host_of(daemon, name)
    assert first, f"{name} has no process"
    os.kill(first, signal.SIGKILL)
    until(lambda: host_of(daemon, name) not in (0, first), what=f"the restart of {name}")
    until(lambda: state(daemon, name) == "open", what=f"{name} open again")


def state(daemon: Daemon, name: str) -> str:
    rows = daemon.request("GET", "/wharfie/plugins")[1]
    return next(row["State"] for row in rows if f"{row['Kind']}.{row['Name']}" == name)


def test_a_container_lives_as_ever(alone: Daemon):
    script = "cat /etc/hostname; echo data > /v/file; ip -4 addr show eth0; echo end >&2"
    output = alone.docker("run", "--name", "c1", "-h", "inside", "-v", "vol:/v", "busybox", "sh", "-c", script, both=True)
    assert "inside" in output and "inet 10." in output and "end" in output
    assert "inside" in alone.docker("logs", "c1")
    assert (
        alone.docker("run", "--rm", "-i", "-v", "vol:/v", "busybox", "cat", "/v/file", "-", stdin=b"typed") == "data\ntyped"
    )
    assert {name for name in EVERY if host_of(alone, name)} == set(EVERY) - {"registry.oci"}
    alone.docker("rm", "c1")
    alone.docker("volume", "rm", "vol")


def test_a_log_is_followed_and_ends_with_its_driver(alone: Daemon):
    alone.docker("run", "-d", "--name", "talker", "busybox", "sh", "-c", "while true; do echo word; sleep 0.2; done")
    follower = alone.spawn_docker("logs", "-f", "talker")
    assert follower.stdout is not None
    assert [follower.stdout.readline() for _ in range(3)] == [b"word\n"] * 3
    kill(alone, "log.json-file")
    follower.communicate(timeout=20)  # it ends, and does not wait for ever
    assert alone.docker("logs", "--tail", "2", "talker") == "word\nword"
    alone.docker("rm", "-f", "talker")


@pytest.mark.parametrize("name", [name for name in EVERY if name != "registry.oci"])
def test_what_runs_goes_on_when_its_driver_is_killed(alone: Daemon, name: str):
    alone.docker("run", "-d", "--name", "web", "-v", "kept:/v", "busybox", "sh", "-c", "echo 1 > /v/n; exec sleep 600")
    address = alone.inspect("web")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    kill(alone, name)
    assert alone.docker("exec", "web", "cat", "/v/n") == "1"
    other = alone.docker("run", "--rm", "busybox", "sh", "-c", f"ping -c1 -W5 {address} >/dev/null && ip -4 addr show eth0")
    assert re.search(r"inet ([\d.]+)", other)[1] != address  # the address book was told again
    alone.docker("stop", "-t", "0", "web")
    assert alone.inspect("web")["State"]["ExitCode"] == 137
    alone.docker("rm", "web")
    alone.docker("volume", "rm", "kept")


def test_an_end_that_no_driver_process_saw_is_found(alone: Daemon):
    alone.docker("run", "-d", "--name", "brief", "busybox", "sh", "-c", "sleep 0.3; exit 9")
    first = host_of(alone, "runtime.native")
    os.kill(first, signal.SIGSTOP)
    pid = alone.inspect("brief")["State"]["Pid"]
    until(lambda: not Path(f"/proc/{pid}").exists())
    os.kill(first, signal.SIGKILL)
    until(lambda: alone.inspect("brief")["State"]["Status"] == "exited")
    assert alone.inspect("brief")["State"]["ExitCode"] == 9
    alone.docker("rm", "brief")
