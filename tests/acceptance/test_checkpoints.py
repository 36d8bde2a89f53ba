"""Checkpoints by the stock CLI: processes that are written to a folder and go on from there.

Where `criu check` says that criu works (as in `make test-cgroup2`) they are made for real; elsewhere it is what the engine
says instead, and that nothing is left of the try, that is looked at.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.harness import PATIENCE, free_port, import_busybox, running, until
from tests.harness import Daemon as OwnDaemon

CRIU = shutil.which("criu")
WORKS = CRIU is not None and subprocess.run([CRIU, "check"], capture_output=True, check=False).returncode == 0
for_real = pytest.mark.skipif(not WORKS, reason="criu is not installed, or `criu check` says that it does not work here")
COUNT = "trap 'exit 7' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done"
KILLS = int(os.environ.get("WHARFIE_CHECKPOINT_KILLS", "2"))
IPV6 = Path("/proc/net/if_inet6").exists()
SYS_RESOURCE = 1 << 24
PRIVILEGED = int(Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0], 16) & SYS_RESOURCE
"""criu asks for the limits of other users' processes, which a host that is itself confined may forbid."""


class Held(OwnDaemon):
    """A daemon whose criu waits before it writes, from `hold` to `release`."""

    def __init__(self, root):
        super().__init__(root, config={"experimental": True})
        self.holding, self.begun = root / "holding", root / "begun"
        self.criu = root / "bin/criu"
        self.criu.parent.mkdir()
        wait = f"[ $1 != dump ] || while [ -e {self.holding} ]; do touch {self.begun}; sleep 0.05; done"
        self.criu.write_text(f'#!/bin/sh\n{wait}\nexec {CRIU} "$@"\n')
        self.criu.chmod(0o755 if CRIU else 0o644)
        self.extra_environment = {"PATH": f"{self.criu.parent}:{os.environ['PATH']}"}

    def hold(self):
        self.holding.touch()

    def release(self):
        self.holding.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    with running(Held(tmp_path_factory.mktemp("experimental"))) as made:
        import_busybox(made)
        yield made


def lines(daemon, name):
    return daemon.docker("logs", name).split()


def wait_for(daemon, name, count):
    until(lambda: len(lines(daemon, name)) >= count, 60, f"{count} lines of {name}")


def count(daemon, name, *options):
    """A container that counts, and has begun to."""
    daemon.docker("run", "-d", "--name", name, *options, "busybox", "sh", "-c", COUNT)
    wait_for(daemon, name, 3)


def actions(daemon, name):
    events = daemon.docker("events", "--since", "10m", "--until", "0s", "--filter", f"container={name}")
    return [line.split()[2] for line in events.splitlines()]


def goes_on(daemon, name):
    """Whether a container that counts goes on where it was, line by line."""
    wait_for(daemon, name, len(lines(daemon, name)) + 3)
    return follows(lines(daemon, name), 1)


def follows(found, first):
    return found == [str(first + number) for number in range(len(found))]


def names(daemon, name, *options):
    return daemon.docker("checkpoint", "ls", *options, name).split()[2:]


def refused(daemon, *words):
    return daemon.docker("checkpoint", *words, status=1, both=True)


@for_real
def test_a_container_goes_on_from_its_checkpoint(daemon, name):
    count(daemon, name, "--restart", "always", "-p", "80", "-v", f"{name}-data:/data")
    assert daemon.docker("checkpoint", "create", name, "first") == "first"
    state = daemon.inspect(name)["State"]
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", 137, 0)
    assert names(daemon, name) == ["first"]
    assert daemon.request("GET", f"/containers/{name}/checkpoints") == (200, [{"Name": "first"}])
    written = len(lines(daemon, name))
    daemon.docker("start", "--checkpoint", "first", name)
    wait_for(daemon, name, written + 1)
    assert goes_on(daemon, name)
    pid = daemon.inspect(name)["State"]["Pid"]
    assert Path(f"/proc/{pid}/status").read_text().count(f"NSpid:\t{pid}\t1\n") == 1
    assert daemon.docker("exec", name, "sh", "-c", "touch /data/new; cat /proc/1/comm") == "sh"
    daemon.docker("stop", name)
    assert daemon.inspect(name)["State"]["ExitCode"] == 7
    expected = ["start", "checkpoint", "die", "start", "die"]
    until(lambda: [action for action in actions(daemon, name) if action in expected] == expected)


@for_real
def test_what_a_container_has_is_the_same_afterwards(daemon, name, tmp_path):
    """Mounts with their options, rights, filter, names, limits, memory that only it knows."""
    user = ("--user", "worker") if PRIVILEGED else ()
    daemon.docker(
        *("run", "-d", "--name", name, "--hostname", "box", *user, "--cap-drop", "NET_RAW", "-m", "64m", "-i"),
        *("--security-opt", "no-new-privileges", "--pids-limit", "40", "--ulimit", "nofile=500", "-e", "A=b"),
        *("--tmpfs", "/scratch:rw,nosuid,size=1m", "-v", f"{name}-data:/data:ro", "-v", f"{tmp_path}:/two words"),
        *("--read-only", "busybox", "sh", "-c"),
        "echo in memory > /dev/shm/kept; echo more > /scratch/kept; exec 7</etc/passwd; read word; echo $word; sleep 600",
    )
    look = "cd /proc/1; cut -d' ' -f4-6 mountinfo | sort; grep -E '^(Uid|Gid|Groups|Cap|NoNew|Seccomp:)' status; hostname"
    look += "; cat limits environ oom_score_adj /dev/shm/kept /scratch/kept; tail -n +2 cgroup; readlink cwd; readlink exe"
    until(lambda: daemon.run_docker("exec", name, "cat", "/scratch/kept").returncode == 0, 30)
    before = daemon.docker("exec", name, "sh", "-c", look)
    daemon.docker("checkpoint", "create", name, "whole")
    daemon.docker("start", "--checkpoint", "whole", name)
    after = daemon.docker("exec", name, "sh", "-c", look)
    assert set(after.splitlines()) ^ set(before.splitlines()) == set()
    with daemon.spawn_docker("attach", name, stdin=subprocess.PIPE) as client:
        client.stdin.write(b"heard\n")
        client.stdin.flush()
        assert client.stdout.readline() == b"heard\n"
        client.kill()


@for_real
def test_streams_that_a_program_has_changed(daemon, name):
    """Which are the container's is known by what they are, not by their numbers."""
    program = "exec 3>&1 > /tmp/own 2> /dev/null; ( sleep 1; while :; do echo child; sleep 0.2; done ) | cat >&3 &"
    program += " while :; do echo own; sleep 0.1; done"
    daemon.docker("run", "-d", "--name", name, "busybox", "sh", "-c", program)
    wait_for(daemon, name, 1)
    daemon.docker("checkpoint", "create", name, "one")
    before = lines(daemon, name)
    daemon.docker("start", "--checkpoint", "one", name)
    size = int(daemon.docker("exec", name, "stat", "-c", "%s", "/tmp/own"))
    wait_for(daemon, name, len(before) + 3)
    assert set(lines(daemon, name)) == {"child"}
    until(lambda: int(daemon.docker("exec", name, "stat", "-c", "%s", "/tmp/own")) > size)
    links = daemon.docker("exec", name, "sh", "-c", "readlink /proc/1/fd/1; readlink /proc/1/fd/2").split()
    assert links == ["/tmp/own", "/dev/null"]


@for_real
def test_no_process_gets_back_what_it_gave_up(daemon, name):
    """no_new_privs of a process's own: kept, or, where criu is too old for it, refused."""
    daemon.docker("run", "-d", "--name", name, "busybox", "setpriv", "--nnp", "sleep", "600")
    flag = ("exec", name, "grep", "NoNewPrivs", "/proc/1/status")
    until(lambda: daemon.docker(*flag).endswith("1"))
    made = daemon.run_docker("checkpoint", "create", name, "one")
    if made.returncode:
        assert b"has set no_new_privs for itself" in made.stderr
        return
    daemon.docker("start", "--checkpoint", "one", name)
    assert daemon.docker(*flag).endswith("1")


@for_real
def test_leave_running_and_another_folder(daemon, name, tmp_path):
    count(daemon, name)
    pid = daemon.inspect(name)["State"]["Pid"]
    folder = tmp_path / "kept/deep"
    daemon.docker("checkpoint", "create", "--leave-running", "--checkpoint-dir", folder, name, "one")
    assert daemon.inspect(name)["State"]["Pid"] == pid
    assert goes_on(daemon, name)
    assert (names(daemon, name), names(daemon, name, "--checkpoint-dir", folder)) == ([], ["one"])
    # Another container of the same image and options can go on from it.
    other = f"{name}-other"
    daemon.docker("create", "--name", other, "busybox", "sh", "-c", COUNT)
    daemon.docker("start", "--checkpoint", "one", "--checkpoint-dir", folder, other)
    wait_for(daemon, other, 3)
    found = lines(daemon, other)
    assert int(found[0]) > 1
    assert follows(found, int(found[0]))
    daemon.docker("checkpoint", "rm", "--checkpoint-dir", folder, name, "one")
    assert list(folder.iterdir()) == []


@for_real
def test_a_paused_container_stays_paused(daemon, name):
    count(daemon, name)
    daemon.docker("pause", name)
    daemon.docker("checkpoint", "create", "--leave-running", name, "one")
    assert daemon.inspect(name)["State"]["Status"] == "paused"
    daemon.docker("unpause", name)
    assert goes_on(daemon, name)
    daemon.docker("pause", name)
    daemon.docker("checkpoint", "create", name, "two")
    assert daemon.inspect(name)["State"]["Status"] == "exited"
    daemon.docker("start", "--checkpoint", "two", name)
    assert goes_on(daemon, name)


@for_real
def test_listeners_go_on_and_connections_are_closed(daemon, name):
    program = "nc -ll -p 80 -e cat & nc -ll -p 81 -e sleep 600 & sleep 1; sleep 600 | nc 127.0.0.1 81 & echo on; wait"
    daemon.docker("run", "-d", "--name", name, "busybox", "sh", "-c", program)
    wait_for(daemon, name, 1)
    until(lambda: daemon.docker("exec", name, "netstat", "-tn").count("ESTABLISHED") == 2)
    made = daemon.run_docker("checkpoint", "create", name, "one")
    if b"Operation not supported" in made.stderr:
        pytest.skip("this criu asks sockets what this kernel does not tell of all of them")
    assert made.returncode == 0, made.stderr
    daemon.docker("start", "--checkpoint", "one", name)
    assert daemon.docker("exec", name, "sh", "-c", "echo again | nc 127.0.0.1 80") == "again"
    assert "ESTABLISHED" not in daemon.docker("exec", name, "netstat", "-tn")


@for_real
def test_a_health_check_waits(daemon, name):
    options = ("--health-cmd", "sleep 0.3", "--health-interval", "50ms", "--health-start-period", "5s")
    count(daemon, name, *options)
    for number in range(3):
        daemon.docker("checkpoint", "create", "--leave-running", name, f"number{number}")
    until(lambda: daemon.inspect(name)["State"]["Health"]["Status"] == "healthy", 30)


@for_real
@pytest.mark.parametrize("mode", ["host", "container"])
def test_a_network_that_is_not_its_own(daemon, name, mode):
    if mode == "container":
        daemon.docker("run", "-d", "--name", f"{name}-net", "busybox", "sleep", "600")
        mode = f"container:{name}-net"
    count(daemon, name, "--network", mode)
    daemon.docker("checkpoint", "create", name, "one")
    daemon.docker("start", "--checkpoint", "one", name)
    assert goes_on(daemon, name)


@for_real
def test_networks_and_ports_follow(daemon, name):
    """The process that the network was made for is gone, and nothing still points at it."""
    port = free_port()
    daemon.docker("network", "create", f"{name}-more")
    count(daemon, name, "-p", f"{port}:80")
    daemon.docker("network", "connect", f"{name}-more", name)
    daemon.docker("checkpoint", "create", name, "one")
    daemon.docker("start", "--checkpoint", "one", name)
    daemon.docker("exec", "-d", name, "nc", "-ll", "-p", "80", "-e", "echo", "heard")
    until(lambda: said(port))
    daemon.docker("network", "disconnect", "bridge", name)
    gateway = daemon.docker("network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", f"{name}-more")
    assert daemon.docker("exec", name, "ip", "route").split()[2] == gateway
    until(lambda: said(port))
    daemon.kill()
    daemon.start()
    assert goes_on(daemon, name)
    until(lambda: said(port))


def said(port):
    """Whether the container is heard, by the kernel's translation and by the proxy, which alone leads from IPv6 to IPv4."""
    heard = []
    for host in ("127.0.0.1", "::1") if IPV6 else ("127.0.0.1",):
        try:
            with socket.create_connection((host, port), timeout=5) as client:
                heard.append(client.recv(100))
        except OSError:
            heard.append(b"")
    return set(heard) == {b"heard\n"}


@for_real
def test_names_are_taken_once(daemon, name):
    count(daemon, name)
    daemon.docker("checkpoint", "create", "--leave-running", name, "taken")
    error = f"cannot checkpoint container {name}: checkpoint with name taken already exists for container {name}"
    assert error in refused(daemon, "create", name, "taken")
    body = {"CheckpointID": "taken", "Exit": True}
    assert daemon.request("POST", f"/containers/{name}/checkpoints", body) == (500, {"message": error})
    assert goes_on(daemon, name)
    assert daemon.exchange("DELETE", f"/containers/{name}/checkpoints/taken")[0] == 204


def test_what_cannot_be_asked_for(daemon, name, tmp_path):
    """Docker's words and statuses, whether or not criu is there."""
    daemon.docker("create", "--name", name, "busybox", "sleep", "600")
    path = f"/containers/{name}/checkpoints"
    assert daemon.request("GET", path) == (200, None)
    assert daemon.request("GET", "/containers/nosuch/checkpoints")[0] == 404
    assert daemon.request("POST", "/containers/nosuch/checkpoints", {"CheckpointID": "one"})[0] == 404
    status, answer = daemon.request("POST", path, {"CheckpointID": "one"})
    assert (status, answer["message"]) == (409, f"container {daemon.inspect(name)['Id']} is not running")
    missing = {"message": f"checkpoint none does not exist for container {name}"}
    assert daemon.request("DELETE", f"{path}/none") == (500, missing)
    missing = {"message": f"checkpoint none does not exist for container /{name}"}
    assert daemon.request("POST", f"/containers/{name}/start?checkpoint=none") == (500, missing)
    assert daemon.inspect(name)["State"]["Status"] == "created"
    daemon.docker("start", name)
    for bad in ("x", "_x", "../x", ".part-x", ""):
        status, answer = daemon.request("POST", path, {"CheckpointID": bad})
        assert (status, answer["message"]) == (
            400,
            f"Invalid checkpoint ID ({bad}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
        )
    assert daemon.request("DELETE", f"{path}/..")[0] == 400
    (tmp_path / "others/folder").mkdir(parents=True)
    assert daemon.request("DELETE", f"{path}/others?dir={tmp_path}")[0] == 400
    assert (tmp_path / "others/folder").is_dir()
    status, answer = daemon.request("POST", path, {"CheckpointID": "one", "CheckpointDir": "relative"})
    assert (status, answer["message"]) == (400, 'checkpoint directory "relative" is not an absolute path')


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--runtime", "runc"), 'runtime driver "runc" cannot write checkpoints'),
        (("-t",), "it has a terminal"),
        (("--init",), "--init"),
        (("--pid", "host"), "its PID namespace is not its own"),
    ],
)
def test_what_no_checkpoint_holds(daemon, name, options, reason):
    if "runc" in options and shutil.which("runc") is None:
        pytest.skip("runc is not there")
    daemon.docker("run", "-d", "--name", name, *options, "busybox", "sleep", "600")
    assert reason in refused(daemon, "create", name, "one")
    assert daemon.docker("exec", name, "echo", "goes on") == "goes on"


def test_processes_of_execs_are_in_the_way(daemon, name):
    count(daemon, name)
    daemon.docker("exec", "-d", name, "sleep", "600")
    assert "1 processes of execs" in refused(daemon, "create", name, "one")
    assert goes_on(daemon, name)


def test_a_folder_that_is_no_checkpoint(daemon, name):
    daemon.docker("create", "--name", name, "busybox", "sleep", "600")
    folder = daemon.data / "containers" / daemon.inspect(name)["Id"] / "checkpoints/empty"
    folder.mkdir(parents=True)
    text = daemon.docker("start", "--checkpoint", "empty", name, status=1, both=True)
    assert "OCI runtime restore failed" in text
    assert daemon.inspect(name)["State"]["Status"] == "created"
    folder.rmdir()
    daemon.docker("start", name)


@pytest.mark.skipif(WORKS or CRIU is None, reason="criu works here, or is not there")
def test_a_criu_that_does_not_work_is_named_with_its_reason(daemon, name):
    count(daemon, name)
    text = refused(daemon, "create", name, "one")
    assert f"({daemon.criu}) does not work on this host, Linux {os.uname().release}: " in text
    assert "it gives no reason" not in text
    assert goes_on(daemon, name)
    assert names(daemon, name) == []


@pytest.mark.skipif(CRIU is None, reason="criu is not there")
def test_a_daemon_that_is_killed_while_one_is_written(daemon, name):
    """Neither is there a half checkpoint, nor does the container stand still."""
    count(daemon, name)
    state = daemon.inspect(name)["State"]
    folder = daemon.data / "containers" / daemon.inspect(name)["Id"] / "checkpoints"
    daemon.hold()
    try:
        client = daemon.spawn_docker("checkpoint", "create", name, "one")
        until(daemon.begun.exists, 30)
        assert [path.name for path in folder.iterdir()] == [".part-one"]
        assert names(daemon, name) == []
        written = len(lines(daemon, name))
        time.sleep(0.5)
        assert len(lines(daemon, name)) - written <= 1  # it stands still
        assert "a checkpoint of the container is being written" in daemon.docker("exec", name, "true", status=126)
        daemon.kill()
        client.communicate()
    finally:
        daemon.release()
    until(lambda: not list(folder.iterdir()), 60, "the half checkpoint to go")
    daemon.start()
    assert (daemon.inspect(name)["State"]["Status"], daemon.inspect(name)["State"]["Pid"]) == ("running", state["Pid"])
    assert goes_on(daemon, name)
    assert names(daemon, name) == []


@for_real
def test_a_daemon_that_is_killed_at_any_instant(daemon, name):
    """Either there is a whole checkpoint and the container has ended, or there is none and it runs. The environment's
    WHARFIE_CHECKPOINT_KILLS says how often."""
    count(daemon, name)
    for number in range(KILLS):
        after = random.uniform(0, 1.2 * PATIENCE)
        print(f"kill {number}: {after:.3f} s after the request")
        client = daemon.spawn_docker("checkpoint", "create", name, f"number{number}")
        time.sleep(after)
        daemon.kill()
        client.communicate()
        daemon.start()
        until(lambda: not list((daemon.data / "containers" / daemon.inspect(name)["Id"]).glob("checkpoints/.part-*")))
        status = daemon.inspect(name)["State"]["Status"]
        if f"number{number}" in names(daemon, name):
            until(lambda: daemon.inspect(name)["State"]["Status"] == "exited")
            daemon.docker("start", "--checkpoint", f"number{number}", name)
        else:
            assert status == "running"
        assert goes_on(daemon, name)


@pytest.mark.skipif(CRIU is None, reason="criu is not there")
def test_a_container_that_is_removed_while_a_checkpoint_is_written(daemon, name):
    count(daemon, name)
    daemon.hold()
    try:
        client = daemon.spawn_docker("checkpoint", "create", name, "one")
        until(daemon.begun.exists, 30)
        daemon.docker("rm", "-f", name)
        client.communicate()
        assert client.returncode == 1
    finally:
        daemon.release()
    assert name not in daemon.docker("ps", "-a")


@pytest.mark.skipif(PATIENCE > 1, reason="nothing differs in an emulated machine, where a daemon's start takes minutes")
def test_without_criu(make_daemon, tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    for place in os.environ["PATH"].split(":"):
        for program in Path(place).iterdir() if Path(place).is_dir() else ():
            if program.name != "criu" and not (programs / program.name).is_symlink():
                (programs / program.name).symlink_to(program)
    daemon = make_daemon(start=False, config={"experimental": True})
    daemon.extra_environment = {"PATH": str(programs)}
    daemon.start()
    import_busybox(daemon)
    count(daemon, "counts")
    assert "made by criu, which is not installed" in refused(daemon, "create", "counts", "one")
    assert goes_on(daemon, "counts")
    assert names(daemon, "counts") == []


def test_experimental_is_told(daemon):
    assert json.loads(daemon.docker("version", "--format", "{{json .Server.Experimental}}")) is True
