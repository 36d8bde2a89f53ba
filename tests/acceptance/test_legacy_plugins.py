"""Docker's legacy plugins, unmodified, through the real daemon and the stock CLI."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.harness import Daemon, Failed, import_busybox, running, until

SERVER = Path(__file__).parents[2] / "plugins" / "docker_plugins" / "tests" / "legacy_server.py"


class Legacy:
    """A daemon, and plugins that can be started beside it."""

    def __init__(self, daemon: Daemon, folder: Path) -> None:
        self.daemon = daemon
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def start(self, name: str, implements: str) -> Path:
        state = self.folder.parent / f"{name}-state"
        state.mkdir(exist_ok=True)
        command = [sys.executable, str(SERVER), str(self.folder / f"{name}.sock"), str(state), "--implements", implements]
        process = self.processes[name] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return state

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def calls(state: Path, method: str) -> list[dict]:
    lines = (state / "calls.jsonl").read_text().splitlines()
    return [asked for found, asked in map(json.loads, lines) if found.endswith(f".{method}")]


@pytest.fixture(scope="module")
def legacy(tmp_path_factory):
    root = tmp_path_factory.mktemp("legacy")
    folder = root / "plugins"
    folder.mkdir()
    daemon = Daemon(root / "daemon")
    daemon.extra_environment["WHARFIE_DOCKER_PLUGIN_DIRS"] = str(folder)
    with running(daemon):
        import_busybox(daemon)
        found = Legacy(daemon, folder)
        dead = socket.socket(socket.AF_UNIX)
        dead.bind(str(folder / "dead.sock"))
        dead.close()
        try:
            yield found
        finally:
            found.stop()


def test_a_volume_plugin_that_comes_while_the_daemon_runs(legacy):
    daemon = legacy.daemon
    assert 'plugin "legacy" not found' in daemon.docker("volume", "create", "-d", "legacy", "data", status=1, both=True)
    state = legacy.start("legacy", "VolumeDriver")
    assert daemon.docker("volume", "create", "-d", "legacy", "-o", "size=1", "data") == "data"
    assert calls(state, "Create") == [{"Name": "data", "Opts": {"size": "1"}}]
    daemon.docker("run", "--rm", "-v", "data:/data", "busybox", "sh", "-c", "echo hello > /data/file")
    assert (state / "volumes" / "data" / "file").read_text() == "hello\n"
    assert len(calls(state, "Mount")) == len(calls(state, "Unmount")) == 1
    assert calls(state, "Mount")[0]["ID"] == calls(state, "Unmount")[0]["ID"]
    assert "legacy" in daemon.docker("volume", "ls")
    document = json.loads(daemon.docker("volume", "inspect", "data"))[0]
    assert (document["Driver"], document["Status"]) == ("legacy", {"uses": 0})
    assert "legacy" in daemon.docker("info", "--format", "{{.Plugins.Volume}}")

    name = daemon.docker("run", "-d", "-v", "data:/data", "busybox", "sleep", "600")
    daemon.kill()
    daemon.start()
    assert daemon.inspect(name)["State"]["Running"]
    daemon.docker("rm", "-f", name)
    until(lambda: len(calls(state, "Unmount")) == 2, what="the end of the use")
    (state / "volumes" / "data" / "file").unlink()
    daemon.docker("volume", "rm", "data")
    assert not (state / "volumes" / "data").exists()


def test_a_dead_plugin_of_another_kind_slows_nobody(legacy):
    began = time.monotonic()
    legacy.daemon.docker("volume", "ls")
    legacy.daemon.docker("info")
    output = legacy.daemon.docker("volume", "create", "-d", "dead", "data2", status=1, both=True)
    assert 'plugin "dead" not found' in output
    assert time.monotonic() - began < 10
    assert "dead.sock does not answer Plugin.Activate" in legacy.daemon.log.read_text()


def test_a_network_plugin_with_its_own_addresses(legacy, request):
    daemon = legacy.daemon
    state = legacy.start("legacynet", "NetworkDriver,IpamDriver")
    number = os.getpid() % 200
    subnet = f"10.195.{number}.0/24"
    network = daemon.docker("network", "create", "-d", "legacynet", "--subnet", subnet, "-o", "color=red", "plain")
    request.addfinalizer(lambda: subprocess.run(["ip", "link", "delete", f"wl{network[:10]}"], capture_output=True))
    ((asked),) = calls(state, "CreateNetwork")
    assert asked["Options"]["com.docker.network.generic"]["color"] == "red"
    assert asked["IPv4Data"][0]["Pool"] == subnet
    output = daemon.docker("run", "--rm", "--network", "plain", "busybox", "sh", "-c", "ip -4 addr show eth0; ip route")
    assert f"inet 10.195.{number}.2/24" in output
    assert f"default via 10.195.{number}.1 dev eth0" in output
    assert len(calls(state, "DeleteEndpoint")) == 1

    server = daemon.docker("run", "-d", "--network", "plain", "--name", "server", "busybox", "sleep", "600")
    daemon.docker("run", "--rm", "--network", "plain", "busybox", "nslookup", "server")
    daemon.kill()
    daemon.start()
    daemon.docker("exec", server, "ip", "addr", "show", "eth0")
    daemon.docker("rm", "-f", server)
    until(lambda: len(calls(state, "DeleteEndpoint")) == 3, what="the end of the endpoints")
    daemon.docker("network", "rm", "plain")
    assert len(calls(state, "DeleteNetwork")) == 1

    network = daemon.docker("network", "create", "-d", "bridge", "--ipam-driver", "legacynet", "owned")
    document = json.loads(daemon.docker("network", "inspect", "owned"))[0]
    assert document["IPAM"]["Config"][0]["Subnet"].startswith("10.197.")
    assert ".2/24" in daemon.docker("run", "--rm", "--network", "owned", "busybox", "ip", "-4", "addr", "show", "eth0")
    daemon.docker("network", "rm", "owned")
    assert calls(state, "ReleasePool")


def test_a_log_plugin(legacy):
    daemon = legacy.daemon
    state = legacy.start("legacylog", "LogDriver")
    flags = ("--log-driver", "legacylog", "--log-opt", "color=red")
    daemon.docker("run", "--name", "talker", *flags, "busybox", "sh", "-c", "echo one; echo two >&2; echo three")
    assert sorted(daemon.docker("logs", "talker", both=True).split()) == ["one", "three", "two"]
    assert len(daemon.docker("logs", "--tail", "1", "talker", both=True).split()) == 1
    assert calls(state, "StartLogging")[0]["Info"]["Config"] == {"color": "red"}
    until(lambda: calls(state, "StopLogging"), what="StopLogging")
    daemon.docker("rm", "talker")

    endless = ("sh", "-c", "while true; do date; sleep 0.05; done")
    name = daemon.docker("run", "-d", *flags, "busybox", *endless)
    follower = daemon.spawn_docker("logs", "-f", name)
    try:
        assert b":" in follower.stdout.readline()
        daemon.docker("rm", "-f", name)
        follower.wait(timeout=10)
    finally:
        follower.kill()
        follower.communicate()


def test_a_log_plugin_that_hangs_freezes_no_container(legacy):
    daemon = legacy.daemon
    legacy.start("deaflog", "LogDriver")
    flags = ("--log-driver", "deaflog", "--log-opt", "deaf=1")
    name = daemon.docker(
        "run", "-d", *flags, "busybox", "sh", "-c", f"yes {'x' * 200} | head -c 6000000; touch /done; sleep 600"
    )
    until(lambda: _succeeds(daemon, "exec", name, "test", "-e", "/done"), 30, "the end of the output")
    began = time.monotonic()
    daemon.docker("rm", "-f", name)
    assert time.monotonic() - began < 20


def _succeeds(daemon: Daemon, *words: str) -> bool:
    return daemon.run_docker(*words).returncode == 0


def test_an_authorization_plugin(tmp_path):
    folder = tmp_path / "plugins"
    folder.mkdir()
    daemon = Daemon(tmp_path / "daemon", config={"authorization-plugins": ["judge"]})
    daemon.extra_environment["WHARFIE_DOCKER_PLUGIN_DIRS"] = str(folder)
    found = Legacy(daemon, folder)
    try:
        state = found.start("judge", "authz")
        with running(daemon):
            import_busybox(daemon)
            assert daemon.docker("run", "--rm", "busybox", "echo", "fine") == "fine"
            denied = daemon.docker("create", "--privileged", "busybox", status=1, both=True)
            assert "authorization denied by plugin judge: no privileged containers for /v1." in denied
            hidden = daemon.docker("volume", "create", "--label", "word=secret", "data", status=1, both=True)
            assert "authorization denied by plugin judge: it says a secret" in hidden  # it is made all the same
            hidden = daemon.docker("volume", "inspect", "data", status=1, both=True)
            assert "authorization denied by plugin judge: it says a secret" in hidden
            (state / "mode").write_text("error")
            assert "judge: broken inside" in daemon.docker("ps", status=1, both=True)
            (state / "mode").unlink()
            daemon.docker("ps")
            found.stop()
            with pytest.raises(Failed, match="does not answer"):
                daemon.docker("ps")
            found.start("judge", "authz")
            daemon.docker("volume", "rm", "data")
    finally:
        found.stop()
