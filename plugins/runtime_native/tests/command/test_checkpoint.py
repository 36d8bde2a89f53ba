"""checkpoint and restore, for real where criu works."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import wait_for

CRIU = shutil.which("criu")
WORKS = CRIU is not None and subprocess.run([CRIU, "check"], capture_output=True, check=False).returncode == 0
COUNT = "trap 'exit 7' TERM; i=0; while :; do i=$((i+1)); echo $i >> /count; sleep 0.1; done"


def counted(runtime):
    path = Path(runtime.spec["root"]["path"], "count")
    return path.read_text().split() if path.exists() else []


def test_what_cannot_be_written(runtime):
    name, _ = runtime.create("sleep", "300")
    assert f"cannot checkpoint a container that is not running: {name} is created" in runtime.fails("checkpoint", name)
    assert "does not exist" in runtime.fails("checkpoint", "none")
    other = runtime.new("sleep", "300")
    assert "wharfie.json" in runtime.fails("restore", "--bundle", runtime.bundle, "--image-path", runtime.state, other)
    assert other not in runtime.ok("list", "--quiet")


@pytest.mark.skipif(WORKS or CRIU is None, reason="criu works here, or is not there")
def test_a_criu_that_does_not_work(runtime, tmp_path):
    name, _ = runtime.running("sh", "-c", COUNT)
    wait_for(lambda: len(counted(runtime)) > 2)
    assert "does not work on this host" in runtime.fails("checkpoint", "--image-path", tmp_path / "image", name)
    before = len(counted(runtime))
    wait_for(lambda: len(counted(runtime)) > before)


@pytest.mark.skipif(not WORKS, reason="criu is not installed, or does not work here")
def test_a_container_goes_on(runtime, adopt, tmp_path):
    name, pid = runtime.running("sh", "-c", COUNT)
    wait_for(lambda: len(counted(runtime)) > 2)
    first, second = tmp_path / "first", tmp_path / "second"
    runtime.ok("checkpoint", "--leave-running", "--image-path", first, name)
    assert runtime.status(name) == "running"
    runtime.ok("checkpoint", "--image-path", second, "--work-path", tmp_path, name)
    assert (tmp_path / "dump.log").exists()
    assert adopt(pid) == -9
    assert "does not exist" in runtime.fails("state", name)
    before = len(counted(runtime))
    words = ("--bundle", runtime.bundle, "--pid-file", runtime.bundle / "pid", "--image-path", second)
    runtime.quietly(runtime.command("restore", "--detach", *words, name))
    restored = int((runtime.bundle / "pid").read_text())
    assert runtime.status(name) == "running"
    wait_for(lambda: len(counted(runtime)) > before + 2)
    found = counted(runtime)
    assert found == [str(number + 1) for number in range(len(found))]
    assert runtime.ok("exec", name, "cat", "/proc/1/comm") == "sh\n"
    runtime.ok("kill", name)
    assert adopt(restored) == 7
    runtime.ok("delete", name)


@pytest.mark.skipif(not WORKS, reason="criu is not installed, or does not work here")
def test_in_the_foreground_streams_are_the_callers(runtime, tmp_path):
    name = runtime.new("sh", "-c", "echo begun; read word; echo $word; exit 4")
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(runtime.command("run", "-b", runtime.bundle, name), text=True, **streams) as run:
        assert run.stdout.readline() == "begun\n"
        runtime.ok("checkpoint", "--image-path", tmp_path / "image", name)
        assert run.wait() == 137
    command = runtime.command("restore", "-b", runtime.bundle, "--image-path", tmp_path / "image", name)
    done = subprocess.run(command, input="given\n", capture_output=True, text=True, timeout=60, check=False)
    assert (done.stderr, done.stdout, done.returncode) == ("", "given\n", 4)
    assert name not in runtime.ok("list", "--quiet")
