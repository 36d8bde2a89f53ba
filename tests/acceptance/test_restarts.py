"""Restart policies with the stock CLI: back-off, counts, and what runs again after the daemon's end."""

from __future__ import annotations

import json
import time

import pytest

from tests.harness import until


def state(daemon, ref):
    return daemon.inspect(ref)["State"]["Status"]


def events(daemon, ref, since, action):
    lines = daemon.docker(
        "events", "--since", str(since), "--until", str(int(time.time()) + 1), "--filter", f"container={ref}",
        "--filter", f"event={action}", "--format", "{{json .}}",
    )  # fmt: skip
    return [json.loads(line)["timeNano"] for line in lines.splitlines()]


def test_each_restart_waits_twice_as_long(daemon, name):
    began = int(time.time())
    daemon.docker("run", "-d", "--name", name, "--restart", "always", "busybox", "false")
    until(lambda: daemon.inspect(name)["RestartCount"] >= 4, what="four restarts")
    daemon.docker("stop", name)
    starts, ends = events(daemon, name, began, "start"), events(daemon, name, began, "die")
    pauses = [(start - end) / 1e9 for end, start in zip(ends, starts[1:], strict=False)]
    for pause, least in zip(pauses, (0.1, 0.2, 0.4, 0.8), strict=False):
        assert pause >= least
    assert state(daemon, name) == "exited"


def test_on_failure_counts_and_gives_up(daemon, name):
    daemon.docker("run", "-d", "--name", name, "--restart", "on-failure:2", "busybox", "sh", "-c", "exit 3")
    until(lambda: state(daemon, name) == "exited", what="giving up")
    found = daemon.inspect(name)
    assert (found["RestartCount"], found["State"]["ExitCode"]) == (2, 3)
    daemon.docker("start", name)
    until(lambda: state(daemon, name) == "exited", what="giving up again")
    assert daemon.inspect(name)["RestartCount"] == 2
    daemon.docker("run", "-d", "--name", f"{name}-fine", "--restart", "on-failure", "busybox", "true")
    until(lambda: state(daemon, f"{name}-fine") == "exited", what="the end")
    assert daemon.inspect(f"{name}-fine")["RestartCount"] == 0


def test_a_restarting_container_can_be_stopped_removed_and_changed(daemon, name):
    for short in ("stopped", "removed", "changed"):
        daemon.docker("run", "-d", "--name", f"{name}-{short}", "--restart", "always", "busybox", "false")
    until(lambda: daemon.inspect(f"{name}-changed")["RestartCount"] >= 3, what="restarts")
    daemon.docker("stop", f"{name}-stopped")
    daemon.docker("rm", "-f", f"{name}-removed")
    daemon.docker("update", "--restart", "no", f"{name}-changed")
    until(lambda: state(daemon, f"{name}-changed") == "exited", what="no more restarts")
    assert state(daemon, f"{name}-stopped") == "exited"
    assert daemon.run_docker("inspect", f"{name}-removed").returncode == 1


POLICIES = ("no", "always", "unless-stopped", "on-failure")


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_after_the_daemons_end(make_daemon, end):
    daemon = make_daemon(busybox=True)
    for policy in POLICIES:
        for case in ("left", "stopped"):
            daemon.docker("run", "-d", "--name", f"{policy}-{case}", "--restart", policy, "busybox", "sleep", "600")
    for policy in POLICIES:
        daemon.docker("stop", "-t", "0", f"{policy}-stopped")
    getattr(daemon, end)()
    daemon.start()
    running = set(daemon.docker("ps", "--format", "{{.Names}}").split())
    # SIGKILL of the daemon leaves containers alone; its clean end stops them all (live-restore is off).
    expected = {"always-left", "unless-stopped-left", "always-stopped"} | (
        {"no-left", "on-failure-left"} if end == "kill" else set()
    )
    if end == "stop":
        expected.add("on-failure-left")  # its end by the daemon's signal was a failure
    assert running == expected


def test_after_a_second_start_of_the_daemon(make_daemon):
    """A manual stop is remembered over two starts, and forgotten with a manual start."""
    daemon = make_daemon(busybox=True)
    daemon.docker("run", "-d", "--name", "once", "--restart", "unless-stopped", "busybox", "sleep", "600")
    daemon.docker("stop", "-t", "0", "once")
    for _ in range(2):
        daemon.stop()
        daemon.start()
        assert state(daemon, "once") == "exited"
    daemon.docker("start", "once")
    daemon.stop()
    daemon.start()
    assert state(daemon, "once") == "running"
