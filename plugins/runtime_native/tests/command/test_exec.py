"""Further processes by command line."""

from __future__ import annotations

import json
import signal

import pytest

from .conftest import wait_for


@pytest.fixture
def box(runtime):
    """A running container's id."""
    runtime.spec["process"]["capabilities"] = {}
    name, _ = runtime.running()
    return name


def test_flags_change_the_containers_own_process(runtime, box):
    script = "id -u; id -g; id -G; pwd; echo $HOSTNAME $A; grep -E 'CapEff|NoNewPrivs' /proc/self/status; exit 7"
    flags = ["--user", "11:12", "--cwd", "/tmp", "--env", "A=b", "--additional-gids", "13", "--no-new-privs"]
    done = runtime.call("exec", *flags, box, "sh", "-c", script)
    assert done.returncode == 7, done.stderr
    *lines, capabilities, privileges = done.stdout.splitlines()
    assert lines == ["11", "12", "12 0 13", "/tmp", "box b"]
    assert capabilities.split()[1] == "0" * 16
    assert privileges.split()[1] == "1"
    assert "0000000000002000" in runtime.ok("exec", "--cap", "CAP_NET_RAW", box, "grep", "CapEff", "/proc/self/status")


def test_process_from_a_file_and_detached(runtime, box):
    process = {"args": ["sleep", "200"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 5, "gid": 5}}
    file, pid_file = runtime.bundle / "process.json", runtime.bundle / "exec.pid"
    file.write_text(json.dumps(process))
    runtime.quietly(runtime.command("exec", "--detach", "--process", file, "--pid-file", pid_file, box))
    pid = int(pid_file.read_text())
    assert pid in json.loads(runtime.ok("ps", "--format", "json", box))
    table = runtime.ok("ps", box, "-eo", "pid,uid,args").splitlines()
    assert table[0].split()[0] == "PID"
    assert [line.split() for line in table[1:]][-1] == [str(pid), "5", "sleep", "200"]
    assert len(table) == 3
    runtime.ok("kill", box, "KILL")
    wait_for(lambda: runtime.status(box) == "stopped")
    assert "cannot exec in a stopped container" in runtime.fails("exec", box, "true", code=255)


def test_errors_are_255_and_one_line(runtime, box):
    assert "cannot write pid file" in runtime.fails("exec", "-d", "--pid-file", "/no/such", box, "sleep", "9", code=255)
    wait_for(lambda: len(json.loads(runtime.ok("ps", "--format", "json", box))) == 1)
    assert r"exec failed: exec: \"nope\": executable file not found in $PATH" in runtime.fails(
        "exec", box, "nope", code=255
    )
    assert "process args cannot be empty" in runtime.fails("exec", box, code=255)
    assert "cannot use console socket" in runtime.fails("exec", "--console-socket", "/x", box, "true", code=255)
    assert "cannot allocate tty" in runtime.fails("exec", "--tty", "--detach", box, "true", code=255)
    assert runtime.call("exec", box, "sh", "-c", "kill -9 $$").returncode == 128 + signal.SIGKILL
