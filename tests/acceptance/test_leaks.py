"""Nothing is left over: after many runs, and after everything was removed."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest


def _trace(daemon):
    """What the kernel and the disk hold of this daemon."""
    rules = subprocess.run(
        ["nft", "-j", "list", "table", "inet", f"wharfie_{daemon.instance}"], capture_output=True, check=False
    )
    elements = 0
    if rules.returncode == 0:
        for entry in json.loads(rules.stdout)["nftables"]:
            held = entry.get("map") or entry.get("set") or {}
            elements += len(held.get("elem", ()))
    return {
        "mounts": daemon.mounts(),
        "links": daemon.links(),
        "cgroups": daemon.cgroups(),
        "rules": elements,
        "processes": len(daemon.processes()),
        "namespaces": len(set(_namespaces(daemon))),
        "containers": sorted(path.name for path in (daemon.data / "containers").glob("*")),
        "bundles": sorted(path.name for path in (daemon.run / "bundles").glob("*")),
        "names": sorted(path.name for path in (daemon.run / "names").glob("*")),
        "layers": sorted(path.name for path in (daemon.data / "storage").rglob("upper")),
    }


def _namespaces(daemon):
    """Network namespaces of the daemon's containers."""
    for path in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            if daemon.cgroup in (path.parent.parent / "cgroup").read_text():
                yield path.readlink()
        except OSError:
            continue


def _daemon_descriptors(daemon):
    return sum(1 for _ in Path(f"/proc/{daemon.process.pid}/fd").iterdir())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hundred_runs_leave_nothing(make_daemon):
    daemon = make_daemon(busybox=True)
    daemon.docker("network", "create", "net")
    words = ("run", "--rm", "-v", "/anonymous", "-p", "127.0.0.1::80", "--network", "net", "busybox", "true")
    for _ in range(3):
        daemon.docker(*words)
    before, descriptors = _trace(daemon), _daemon_descriptors(daemon)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: daemon.docker(*words), range(100)))
    assert _trace(daemon) == before
    assert abs(_daemon_descriptors(daemon) - descriptors) <= 5
    assert daemon.docker("volume", "ls", "-q") == ""
    daemon.docker("network", "rm", "net")
    assert [link for link in daemon.links() if link != daemon.bridge] == []


def test_a_failed_start_leaves_nothing(make_daemon):
    daemon = make_daemon(busybox=True)
    daemon.docker("run", "--rm", "-p", "127.0.0.1::80", "busybox", "true")
    before = _trace(daemon)
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
    assert _trace(daemon) == before
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
