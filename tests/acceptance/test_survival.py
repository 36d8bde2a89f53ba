"""The daemon dies and comes back: containers, output, exit codes and clients do not notice."""

from __future__ import annotations

import os
import re
import signal
import time
import urllib.request

import pytest

from tests.harness import until

COUNTER = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"


def test_ten_containers_and_an_attached_client(make_daemon):
    daemon = make_daemon(busybox=True)
    for number in range(10):
        daemon.docker("run", "-d", "--name", f"count{number}", "busybox", "sh", "-c", COUNTER)
    daemon.docker("run", "-d", "--name", "short", "busybox", "sh", "-c", "sleep 1; echo last words; exit 42")
    daemon.docker("run", "-d", "--rm", "--name", "shortrm", "busybox", "sh", "-c", "sleep 1; exit 3")
    attached = daemon.spawn_docker(
        "run", "--name", "attached", "busybox", "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.4; done; exit 9"
    )
    until(lambda: daemon.log.read_text().count("/start: 204") == 13, what="the client's word that it runs")
    daemon.kill()
    time.sleep(1.5)
    assert attached.poll() is None
    daemon.start()
    names = daemon.docker("ps", "--format", "{{.Names}}").split()
    assert {f"count{number}" for number in range(10)} <= set(names)
    output, errors = attached.communicate(timeout=20)
    assert output.split() == [b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8"], errors
    assert attached.returncode == 9
    state = daemon.inspect("short")["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 42)
    assert daemon.docker("logs", "short") == "last words"
    assert "shortrm" not in daemon.docker("ps", "-a", "--format", "{{.Names}}").split()
    for number in range(10):
        daemon.docker("stop", "-t", "0", f"count{number}")
        lines = daemon.docker("logs", f"count{number}").split()
        assert lines == [str(line) for line in range(1, len(lines) + 1)]
        assert len(lines) > 60
    assert until(lambda: daemon.inspect("attached")["State"]["ExitCode"] == 9)


def test_a_client_outlives_the_daemon_alone(make_daemon):
    """Nobody comes back: the client still ends with the container's code."""
    daemon = make_daemon(busybox=True)
    attached = daemon.spawn_docker("run", "--name", "one", "busybox", "sh", "-c", "sleep 2; echo done; exit 6")
    until(lambda: "/start: 204" in daemon.log.read_text(), what="the client's word that it runs")
    daemon.kill()
    output, _ = attached.communicate(timeout=20)
    assert (output, attached.returncode) == (b"done\n", 6)
    daemon.start()
    assert daemon.inspect("one")["State"]["ExitCode"] == 6


def test_published_ports_and_names_go_on(make_daemon):
    daemon = make_daemon(busybox=True)
    daemon.docker("network", "create", "net")
    daemon.docker(
        "run", "-d", "--name", "web", "--network", "net", "-p", "127.0.0.1::80", "busybox", "httpd", "-f", "-h", "/etc"
    )
    asking = "while :; do wget -qO- http://web/passwd >/dev/null && echo ok || echo broken; sleep 0.1; done"
    daemon.docker("run", "-d", "--name", "peer", "--network", "net", "busybox", "sh", "-c", asking)
    port = daemon.docker("port", "web", "80/tcp").rsplit(":", 1)[1]
    time.sleep(0.5)
    daemon.kill()
    time.sleep(0.8)
    assert b"root" in urllib.request.urlopen(f"http://127.0.0.1:{port}/passwd", timeout=5).read()
    daemon.start()
    assert b"root" in urllib.request.urlopen(f"http://127.0.0.1:{port}/passwd", timeout=5).read()
    time.sleep(0.5)
    assert set(daemon.docker("logs", "peer").split()) == {"ok"}
    second = ("run", "-d", "--name", "second", "-p", f"127.0.0.1:{port}:80", "busybox", "true")
    taken = daemon.docker(*second, status=125, both=True)
    assert "port is already allocated" in taken
    address = daemon.inspect("web")["NetworkSettings"]["Networks"]["net"]["IPAddress"]
    other = daemon.docker("run", "--rm", "--network", "net", "busybox", "ip", "-4", "addr", "show", "eth0")
    assert re.search(rf"inet {re.escape(address)}/", other) is None


@pytest.mark.slow
def test_killed_in_the_middle_of_anything(make_daemon):
    """Daemon killed while containers are made, started and removed: what was acknowledged holds, nothing else is left."""
    daemon = make_daemon(busybox=True)
    for round_number in range(6):
        clients = [
            daemon.spawn_docker(
                "run", "-d", "--name", f"r{round_number}c{n}", "-p", "127.0.0.1::80", "busybox", "sleep", "60"
            )
            for n in range(4)
        ]
        time.sleep(0.02 + 0.03 * round_number)
        daemon.kill()
        acknowledged = [n for n, client in enumerate(clients) if client.wait() == 0]
        for client in clients:
            client.communicate()
        daemon.start()
        running = daemon.docker("ps", "--format", "{{.Names}}").split()
        assert {f"r{round_number}c{n}" for n in acknowledged} <= set(running)
        everything = daemon.docker("ps", "-aq").split()
        if everything:
            daemon.docker("rm", "-f", *everything)
        assert daemon.cgroups() == []
        assert [link for link in daemon.links() if link != daemon.bridge] == []
        assert not [process for process in daemon.processes() if "/containers/" in process]


def test_a_killed_shim_ends_its_container_only(make_daemon):
    daemon = make_daemon(busybox=True)
    for name in ("victim", "other"):
        daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "600")
    victim = daemon.inspect("victim")["Id"]
    pids = [path for path in daemon.run.rglob("shim.pid") if victim in str(path)]
    os.kill(int(pids[0].read_text().split()[0]), signal.SIGKILL)
    until(lambda: daemon.inspect("victim")["State"]["Status"] == "exited")
    assert daemon.inspect("victim")["State"]["ExitCode"] == 137
    assert daemon.inspect("other")["State"]["Running"] is True
    daemon.docker("rm", "victim")
    assert [path for path in daemon.cgroups() if victim in path] == []


def test_clean_shutdown_stops_containers_and_leaves_nothing(make_daemon):
    daemon = make_daemon(busybox=True)
    daemon.docker(
        "run",
        "-d",
        "--name",
        "plain",
        "-p",
        "127.0.0.1::80",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 5' TERM; while :; do sleep 0.05; done",
    )
    daemon.docker("run", "-d", "--name", "always", "--restart", "always", "busybox", "sleep", "600")
    daemon.stop()
    assert daemon.processes() == []
    assert daemon.links() == []
    assert daemon.mounts() == []
    assert daemon.cgroups() == []
    daemon.start()
    assert daemon.inspect("plain")["State"]["ExitCode"] == 5
    until(lambda: daemon.inspect("always")["State"]["Running"])
