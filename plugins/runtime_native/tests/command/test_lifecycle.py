"""A container from create to delete, step by step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

from .conftest import wait_for


def test_each_step_has_its_state(runtime, adopt):
    name, pid = runtime.create("sh", "-c", "touch /ran; exec sleep 300")
    told = json.loads(runtime.ok("state", name))
    assert (told["id"], told["pid"], told["status"]) == (name, pid, "created")
    assert (told["ociVersion"], told["bundle"], told["owner"]) == ("1.2.0", str(runtime.bundle), "root")
    assert not (Path(runtime.spec["root"]["path"]) / "ran").exists()
    runtime.ok("start", name)
    wait_for((Path(runtime.spec["root"]["path"]) / "ran").exists)
    assert runtime.status(name) == "running"
    assert "cannot start an already running container" in runtime.fails("start", name)
    runtime.ok("pause", name)
    assert runtime.status(name) == "paused"
    assert "paused" in runtime.fails("exec", name, "true", code=255)
    assert "not running or created" in runtime.fails("pause", name)
    runtime.ok("resume", name)
    assert f"cannot delete container {name} that is not stopped: running" in runtime.fails("delete", name)
    runtime.ok("kill", name, "KILL")
    assert adopt(pid) == -signal.SIGKILL, "the exit status is the subreaper's"
    told = json.loads(runtime.ok("state", name))
    assert (told["status"], told["pid"]) == ("stopped", 0)
    assert "container not running" in runtime.fails("kill", name, "TERM")
    assert "has stopped" in runtime.fails("start", name)
    runtime.ok("delete", name)
    assert not runtime.groups(name)
    assert "does not exist" in runtime.fails("state", name)
    assert "does not exist" in runtime.fails("delete", name)
    runtime.ok("delete", "--force", name)


def test_exit_code_is_the_subreapers(runtime, adopt):
    name, pid = runtime.create("sh", "-c", "exit 7")
    runtime.ok("start", name)
    assert adopt(pid) == 7


def test_run_passes_streams_environment_and_exit_code(runtime):
    name = runtime.new("sh", "-c", "read word; echo $word $$ $A; echo no >&2; exit 9", env=["PATH=/bin", "A=b"])
    command = runtime.command("run", "--bundle", runtime.bundle, name)
    done = subprocess.run(command, input="given\n", capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (9, "given 1 b\n", "no\n")
    assert not runtime.groups(name)
    assert name not in runtime.ok("list", "--quiet")


def test_run_passes_signals_on(runtime):
    name = runtime.new("sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    with subprocess.Popen(runtime.command("run", "-b", runtime.bundle, name), stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "ready\n"
        run.send_signal(signal.SIGTERM)
        assert run.wait(30) == 5


def test_run_detached_and_kept(runtime, adopt):
    name = runtime.new("sh", "-c", "exit 3")
    assert runtime.call("run", "--keep", "-b", runtime.bundle, name).returncode == 3
    assert runtime.status(name) == "stopped"
    other = runtime.new("sleep", "300")
    pid_file = runtime.bundle / "pid"
    runtime.quietly(runtime.command("run", "--detach", "--pid-file", pid_file, "-b", runtime.bundle, other))
    assert runtime.status(other) == "running"
    runtime.ok("pause", other)
    runtime.ok("delete", "--force", other)
    assert adopt(int(pid_file.read_text())) == -signal.SIGKILL


def test_delete_of_a_created_container_needs_no_force(runtime, adopt):
    name, pid = runtime.create("true")
    runtime.ok("delete", name)
    assert adopt(pid) == -signal.SIGKILL
    assert not runtime.groups(name)


def test_kill_all_reaches_everybody(runtime, adopt):
    name, pid = runtime.running("sh", "-c", "sleep 300 & sleep 300 & wait; exec sleep 300")
    wait_for(lambda: len(json.loads(runtime.ok("ps", "--format", "json", name))) == 3)
    runtime.ok("kill", "--all", name)
    wait_for(lambda: len(json.loads(runtime.ok("ps", "--format", "json", name))) == 1)
    runtime.ok("kill", "--all", name, "9")
    assert adopt(pid) == -signal.SIGKILL


def test_program_that_cannot_be_executed_is_told_by_start(runtime, adopt):
    odd = Path(runtime.spec["root"]["path"]) / "bin/odd"
    odd.write_bytes(b"\x01\x02\x03")
    odd.chmod(0o755)
    name, pid = runtime.create("odd")
    assert "exec format error" in runtime.fails("start", name)
    assert adopt(pid) == 1


def test_what_failed_to_be_made_leaves_nothing(runtime):
    name = runtime.new("no-such-program")
    line = runtime.fails("create", "-b", runtime.bundle, name)
    assert line.endswith(
        r'msg="wharfie-runtime create failed: exec: \"no-such-program\": executable file not found in $PATH"'
    )
    assert not (runtime.state / name).exists()
    assert not runtime.groups(name)


def test_an_id_and_a_group_that_are_taken(runtime, adopt):
    name, pid = runtime.running()
    assert "already exists" in runtime.fails("create", "-b", runtime.bundle, name)
    runtime.ids.append("other")
    assert "in use" in runtime.fails("create", "-b", runtime.bundle, "other")
    assert runtime.status(name) == "running"
    assert "invalid container id format" in runtime.fails("create", "-b", runtime.bundle, "../x")
    os.kill(pid, signal.SIGKILL)
    adopt(pid)


def test_descriptors_that_are_to_be_handed_on(runtime):
    name = runtime.new("sh", "-c", "echo from inside >&3; ls /proc/self/fd | wc -l")
    file = runtime.bundle / "third"
    script = f'exec "$@" 3>{file}'
    command = ["sh", "-c", script, "sh", *runtime.command("run", "-b", runtime.bundle, "--preserve-fds", 1, name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("5\n", "")  # 0, 1, 2, 3 and that of ls itself
    assert file.read_text() == "from inside\n"
    assert "please check that preserved file descriptor 3" in runtime.fails(
        "run", "-b", runtime.bundle, "--preserve-fds", 1, runtime.new("true")
    )


def test_without_pivot_root_and_keyring(runtime):
    name = runtime.new("sh", "-c", "pwd; ls /; cat /proc/self/mountinfo | wc -l; cat /proc/keys 2>/dev/null | wc -l")
    done = runtime.call("run", "--no-pivot", "--no-new-keyring", "-b", runtime.bundle, name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "/"
    assert "data" in done.stdout.splitlines()


def test_hooks_of_all_kinds(runtime, adopt):
    """What they are told and when: those of create, of start, of delete; the last one's failure is a warning."""
    record = runtime.bundle / "record"
    script = f'state=$(cat); echo "$0 $(echo "$state" | tr , "\\n" | grep status | cut -d: -f2 | tr -d \' "\')" >> {record}'

    def hook(kind):
        return [{"path": "/bin/sh", "args": ["sh", "-c", script, kind], "env": ["PATH=/usr/bin:/bin"]}]

    kinds = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    runtime.spec["hooks"] = {kind: hook(kind) for kind in kinds}
    runtime.spec["hooks"]["startContainer"] = [{"path": "/bin/sh", "args": ["sh", "-c", "cat > /told"]}]
    runtime.spec["hooks"]["poststop"].append({"path": "/no/such"})
    name, pid = runtime.create("sleep", "300")
    made = "prestart creating\ncreateRuntime creating\ncreateContainer creating\n"
    assert record.read_text() == made
    runtime.ok("start", name)
    assert record.read_text() == made + "poststart running\n"
    told = json.loads((Path(runtime.spec["root"]["path"]) / "told").read_text())
    assert (told["id"], told["status"], told["pid"]) == (name, "created", 1)
    done = runtime.call("delete", "--force", name)
    assert done.returncode == 0
    assert "level=warning" in done.stderr
    assert "error running poststop hook #1 (/no/such)" in done.stderr
    assert record.read_text() == made + "poststart running\npoststop stopped\n"
    adopt(pid)


def test_user_namespace(runtime, adopt):
    runtime.spec["linux"]["namespaces"].append({"type": "user"})
    runtime.spec["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 1000}]
    runtime.spec["linux"]["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 1000}]
    subprocess.run(["chown", "-R", "100000:100000", runtime.spec["root"]["path"]], check=True)
    name = runtime.new("sleep", "300")
    # SIGCHLD is ignored, as some callers have it; the process that makes the user namespace has to be waited for.
    create = runtime.command("create", "-b", runtime.bundle, "--pid-file", runtime.bundle / "pid", name)
    runtime.quietly(["env", "--ignore-signal=CHLD", *create])
    pid = int((runtime.bundle / "pid").read_text())
    runtime.ok("start", name)
    assert os.stat(f"/proc/{pid}").st_uid == 100000
    assert runtime.ok("exec", name, "id", "-u") == "0\n"
    runtime.ok("kill", name, "9")
    assert adopt(pid) == -signal.SIGKILL
