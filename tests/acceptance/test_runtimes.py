"""Other runtimes behind the same commands: runc and crun by --runtime, by daemon.json, and over the daemon's death."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import Daemon, import_busybox, running, until

BINARIES = ("runc", "crun")
pytestmark = pytest.mark.skipif(not all(map(shutil.which, BINARIES)), reason="needs runc and crun")


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A daemon with a runtime of its user's naming, which is also its default."""
    own = Path(sys.executable).with_name("wharfie-runtime")
    runtimes = {"mine": {"path": shutil.which("runc"), "runtimeArgs": ["--debug"]}, "own": {"path": str(own)}}
    with running(
        Daemon(tmp_path_factory.mktemp("runtimes"), config={"runtimes": runtimes, "default-runtime": "mine"})
    ) as own:
        import_busybox(own)
        yield own
        assert own.docker("ps", "-aq") == ""


@pytest.fixture(params=BINARIES)
def runtime(request):
    return request.param


@pytest.fixture(params=[*BINARIES, "own"])
def any_runtime(request):
    """Wharfie's runtime as an OCI program, too."""
    return request.param


def runc_knows(daemon, runtime):
    """Ids that the binary itself lists for this daemon."""
    (root,) = (daemon.run / "runtime" / runtime).glob(".oci/state")
    return [path.name for path in root.iterdir() if not path.name.startswith("@")]


def test_output_and_status(house, any_runtime):
    words = ("run", "--rm", "--runtime", any_runtime)
    result = house.run_docker(*words, "busybox", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.returncode, result.stdout, result.stderr) == (7, b"out\n", b"err\n")
    assert house.docker(*words, "-i", "busybox", "cat") == ""
    assert house.run_docker(*words, "-i", "busybox", "cat", stdin=b"given").stdout == b"given"
    assert runc_knows(house, any_runtime) == []


@pytest.mark.parametrize(
    ("program", "status", "text"),
    [
        ("nosuch", 127, 'exec: "nosuch": executable file not found in $PATH'),
        ("/no/such", 127, "no such file or directory"),
        ("/etc/passwd", 126, "permission denied"),
        ("/tmp", 126, ""),
    ],
)
def test_what_cannot_run(house, runtime, program, status, text):
    result = house.run_docker("run", "--rm", "--runtime", runtime, "busybox", program)
    assert (result.returncode, text in result.stderr.decode()) == (status, True), result.stderr


def test_exec_stop_pause_and_logs(house, any_runtime):
    box = house.docker(
        "run",
        "-d",
        "--runtime",
        any_runtime,
        "busybox",
        "sh",
        "-c",
        "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done",
    )
    try:
        assert runc_knows(house, any_runtime) == [box]
        until(lambda: house.docker("logs", box) == "up", what="the output")
        result = house.run_docker("exec", "-e", "A=b", "-u", "worker", box, "sh", "-c", "id -un; echo $A; exit 5")
        assert (result.returncode, result.stdout) == (5, b"worker\nb\n")
        assert house.run_docker("exec", box, "nosuch").returncode == 127
        assert house.run_docker("exec", box, "/etc/passwd").returncode == 126
        house.docker("pause", box)
        assert house.inspect(box)["State"]["Status"] == "paused"
        house.docker("unpause", box)
        until(lambda: "sleep" in house.docker("top", box), what="the loop's sleep among the processes")
        house.docker("stop", box)
        assert house.inspect(box)["State"]["ExitCode"] == 3
        house.docker("start", box)
        assert house.docker("logs", box) == "up\nup"
    finally:
        house.docker("rm", "-f", box)
    assert runc_knows(house, any_runtime) == []


def test_terminal(house, runtime):
    words = ["run", "--rm", "-it", "--runtime", runtime, "busybox", "sh", "-c", "tty; stty size; exit 4"]
    script = f"""
import pty, sys
sys.exit(pty.spawn(["docker", *{words!r}]) >> 8)
"""
    result = subprocess.run(
        [sys.executable, "-c", script], env=house.environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60
    )
    assert result.returncode == 4, result
    assert b"/dev/" in result.stdout


def test_limits_and_their_update(house, runtime):
    box = house.docker(
        "run", "-d", "--runtime", runtime, "-m", "32m", "--pids-limit", "50", "--cpus", "0.5", "busybox", "sleep", "300"
    )
    try:
        counters = ("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", box)
        assert house.docker(*counters).split()[2:] == ["32MiB", "1"]
        house.docker("update", "-m", "64m", "--memory-swap", "-1", "--pids-limit", "60", box)
        assert house.docker(*counters).split()[2:] == ["64MiB", "1"]
        house.docker("rm", "-f", box)
        words = ("-m", "16m", "--memory-swap", "16m", "busybox", "tail", "/dev/zero")
        box = house.docker("run", "-d", "--runtime", runtime, *words)
        assert house.docker("wait", box) == "137"
        assert house.inspect(box)["State"]["OOMKilled"] is True
    finally:
        house.docker("rm", "-f", box)


def test_options_of_run(house, runtime):
    volume = f"{runtime}-data"
    words = (
        "run",
        "--rm",
        "--runtime",
        runtime,
        "--init",
        "--read-only",
        "--hostname",
        "box",
        "--domainname",
        "example.org",
    )
    words += ("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "-v", f"{volume}:/data", "--tmpfs", "/run")
    words += ("-u", "worker", "--sysctl", "net.core.somaxconn=77", "--ulimit", "nofile=123", "--add-host", "a:192.0.2.7")
    script = (
        "hostname; cat /proc/sys/kernel/domainname /proc/sys/net/core/somaxconn; ulimit -n; id -u; "
        "grep -c 192.0.2.7 /etc/hosts; "
        "grep CapEff /proc/self/status; cat /proc/1/comm; touch /x || echo read-only; touch /run/x && echo tmpfs"
    )
    said = house.docker(*words, "busybox", "sh", "-c", script, both=True).split("\n")
    house.docker("volume", "rm", volume)
    assert said[:6] == ["box", "example.org", "77", "123", "1000", "1"]
    assert said[6].split()[1] == "0" * 16
    assert said[7] == "docker-init"
    assert "read-only" in said


def test_networks_names_and_ports(house, runtime):
    house.docker("network", "create", f"{runtime}-net")
    words = ("run", "-d", "--runtime", runtime, "--network", f"{runtime}-net")
    web = house.docker(*words, "--name", f"{runtime}-web", "-p", "127.0.0.1::80", "busybox", "httpd", "-f", "-h", "/etc")
    try:
        port = house.docker("port", web, "80/tcp")
        until(lambda: subprocess.run(["curl", "-sf", f"http://{port}/passwd"], capture_output=True, check=False).stdout)
        page = house.docker(
            *("run", "--rm", "--runtime", "native", "--network", f"{runtime}-net", "busybox"),
            *("wget", "-qO-", f"http://{runtime}-web/passwd"),
        )
        assert "worker" in page
        other = house.docker(
            "run",
            "--rm",
            "--runtime",
            runtime,
            "--network",
            f"container:{web}",
            "busybox",
            "wget",
            "-qO-",
            "http://127.0.0.1/group",
        )
        assert "worker" in other
    finally:
        house.docker("rm", "-f", web)
        house.docker("network", "rm", f"{runtime}-net")


def test_names_choose_drivers(house):
    assert house.inspect(made(house, "--runtime", "native"))["HostConfig"]["Runtime"] == "native"
    assert house.inspect(made(house))["HostConfig"]["Runtime"] == "mine"
    box = made(house, "--runtime", "runc")
    assert runc_knows(house, "runc") == [box]
    assert len(runc_knows(house, "mine")) == 1
    house.docker("rm", "-f", *house.docker("ps", "-aq").split())
    assert runc_knows(house, "mine") == runc_knows(house, "runc") == []
    info = json.loads(house.docker("info", "--format", "{{json .}}"))
    assert info["DefaultRuntime"] == "mine"
    assert {"crun", "mine", "native", "runc", "runsc"} <= info["Runtimes"].keys()


def made(house, *words):
    return house.docker("run", "-d", *words, "busybox", "sleep", "300")


@pytest.mark.parametrize("name", ["runc", "io.containerd.runc.v2"])
def test_dockers_own_name_means_the_default_where_runc_is_not(make_daemon, tmp_path, name):
    daemon = make_daemon(config={"runtimes": {"runc": {"path": "/no/such/runc"}}}, busybox=True)
    result = daemon.run_docker("run", "--rm", "--runtime", name, "busybox", "echo", "hi")
    assert (result.returncode, result.stdout) == (0, b"hi\n")
    assert f"The runtime native is used in place of {name}" in result.stderr.decode()
    assert "/no/such/runc" in result.stderr.decode()


def test_a_program_that_is_not_there_is_named(make_daemon):
    daemon = make_daemon(config={"runtimes": {"mine": {"path": "/no/such/program"}}}, busybox=True)
    said = daemon.docker("run", "--rm", "--runtime", "mine", "busybox", "true", status=125, both=True)
    assert 'the program "/no/such/program" is not there' in said


def test_containers_go_on_without_the_daemon(make_daemon, runtime):
    daemon = make_daemon(busybox=True, config={"default-runtime": runtime})
    script = "i=0; while :; do echo $((i=i+1)); sleep 0.05; done"
    box = daemon.docker("run", "-d", "busybox", "sh", "-c", script)
    short = daemon.docker("run", "-d", "busybox", "sh", "-c", "sleep 0.5; echo end; exit 6")
    pid, short_pid = (daemon.inspect(one)["State"]["Pid"] for one in (box, short))
    daemon.kill()
    until(lambda: not Path(f"/proc/{short_pid}").exists(), what="the end of the short one")
    daemon.start()
    assert daemon.inspect(box)["State"]["Pid"] == pid
    assert daemon.docker("wait", short) == "6"
    assert daemon.docker("logs", short) == "end"
    assert daemon.docker("exec", box, "echo", "in") == "in"
    lines = daemon.docker("logs", box).split()
    assert lines == [str(n + 1) for n in range(len(lines))]
    daemon.docker("rm", "-f", box, short)
    assert daemon.cgroups() == []


@pytest.mark.parametrize("name", ["native", *BINARIES])
def test_a_killed_shim_takes_its_container_along(make_daemon, name):
    """Also when nobody was there to see it."""
    daemon = make_daemon(busybox=True, config={"default-runtime": name})
    box = daemon.docker("run", "-d", "busybox", "sleep", "300")
    pid = daemon.inspect(box)["State"]["Pid"]
    shim = int((daemon.run / "runtime" / name / box / "shim.pid").read_text())
    daemon.kill()
    subprocess.run(["kill", "-9", str(shim)], check=True)
    daemon.start()
    state = daemon.inspect(box)["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 137)
    assert daemon.cgroups() == []
    assert "sleep" not in _command_of(pid)
    daemon.docker("start", box)
    assert daemon.docker("exec", box, "echo", "again") == "again"


def _command_of(pid):
    """Empty for a process that is gone, or that only waits to be collected."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except FileNotFoundError:
        return ""
