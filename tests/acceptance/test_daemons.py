"""Several daemons on one machine, and one that lacks things."""

from __future__ import annotations

import subprocess

from tests.harness import Daemon, running


def test_two_daemons_side_by_side(make_daemon):
    first, second = make_daemon("one", busybox=True), make_daemon("two", busybox=True)
    for daemon in (first, second):
        daemon.docker("run", "-d", "--name", "web", "-p", "127.0.0.1::80", "busybox", "httpd", "-f", "-h", "/etc")
    ports = {daemon.docker("port", "web", "80/tcp") for daemon in (first, second)}
    assert len(ports) == 2
    first.docker("rm", "-f", "web")
    address = second.docker("port", "web", "80/tcp")
    page = subprocess.run(["curl", "-sf", "--max-time", "3", f"http://{address}/passwd"], capture_output=True, check=True)
    assert b"root" in page.stdout
    assert first.docker("ps", "-aq") == ""


def test_two_on_one_root_are_refused(make_daemon):
    daemon = make_daemon()
    result = subprocess.run(daemon.command(), capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode != 0
    assert str(daemon.data) in result.stderr
    assert "Traceback" not in result.stderr
    assert daemon.request("GET", "/_ping")[0] == 200


def test_the_default_network_can_be_absent(tmp_path):
    daemon = Daemon(tmp_path / "none", config={"bridge": "none"}, bridge=False)
    with running(daemon):
        names = daemon.docker("network", "ls", "--format", "{{.Name}}").split()
        assert sorted(names) == ["host", "none"]
