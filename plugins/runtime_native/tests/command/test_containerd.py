"""containerd's runc shim drives `wharfie-runtime`: a containerd of folders of its own, started by hand, and ctr."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from wharfie.shim.cgroups import prune

from .conftest import SCRIPT, wait_for

PROGRAMS = ("containerd", "ctr", "containerd-shim-runc-v2")
NAMESPACE = "wharfie-test"  # which is also the group above those of its containers

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, PROGRAMS)) or os.geteuid() != 0, reason="needs containerd, and root"
)

CONFIG = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{folder}/socket"
[ttrpc]
  address = "{folder}/socket.ttrpc"
"""


class Containerd:
    """A containerd and its ctr."""

    def __init__(self, folder: Path, rootfs: Path) -> None:
        self.folder = folder
        self.rootfs = rootfs
        (folder / "config.toml").write_text(CONFIG.format(folder=folder))
        with open(folder / "log", "w") as log:
            self.process = subprocess.Popen(["containerd", "--config", str(folder / "config.toml")], stdout=log, stderr=log)
        wait_for(lambda: self.call("version").returncode == 0)

    def call(self, *words, **more):
        command = ["ctr", "--address", str(self.folder / "socket"), "--namespace", NAMESPACE, *map(str, words)]
        more = {"stdin": subprocess.DEVNULL, **more}
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **more)

    def ok(self, *words, **more):
        done = self.call(*words, **more)
        assert done.returncode == 0, (words, done.stdout, done.stderr, (self.folder / "log").read_text()[-2000:])
        return done.stdout

    def run(self, *words):
        """Arguments of `run` for a container on this root, by this runtime."""
        return [
            "run",
            "--env",
            "PATH=/bin",
            "--runc-binary",
            SCRIPT,
            "--runc-root",
            self.folder / "runtime",
            "--rootfs",
            *words,
        ]

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


@pytest.fixture(scope="module")
def containerd(image):
    folder = Path(tempfile.mkdtemp(prefix="wh-containerd-"))
    rootfs = folder / "rootfs"
    shutil.copytree(image, rootfs, symlinks=True)
    made = Containerd(folder, rootfs)
    yield made
    for name in made.ok("tasks", "list", "--quiet").split():
        made.call("tasks", "delete", "--force", name)
    made.close()
    prune(NAMESPACE)
    shutil.rmtree(folder)


def test_run_with_exit_code_and_terminal(containerd):
    done = containerd.call(*containerd.run("--rm", containerd.rootfs, "one", "sh", "-c", "echo said; exit 3"))
    assert (done.returncode, done.stdout) == (3, "said\n"), done.stderr
    done = containerd.call(*containerd.run("--rm", containerd.rootfs, "two", "nope"))
    assert done.returncode == 1
    assert 'wharfie-runtime create failed: exec: "nope": executable file not found in $PATH' in done.stderr


def test_life_of_a_task(containerd):
    containerd.ok(*containerd.run("--detach", "--memory-limit", 64 << 20, containerd.rootfs, "task", "sleep", "300"))
    runtime = [SCRIPT, "--root", containerd.folder / "runtime" / NAMESPACE]

    def state():
        return json.loads(subprocess.check_output([*runtime, "state", "task"], text=True))

    assert state()["status"] == "running"
    done = containerd.call("tasks", "exec", "--exec-id", "first", "task", "sh", "-c", "echo inside; exit 4")
    assert (done.returncode, done.stdout) == (4, "inside\n"), done.stderr
    done = containerd.call("tasks", "exec", "--exec-id", "second", "task", "nope")
    assert "executable file not found in $PATH" in done.stderr
    containerd.ok("tasks", "pause", "task")
    assert state()["status"] == "paused"
    containerd.ok("tasks", "resume", "task")
    assert str(state()["pid"]) in containerd.ok("tasks", "ps", "task")
    assert "memory" in containerd.ok("tasks", "metrics", "task")
    containerd.ok("tasks", "kill", "--signal", "SIGKILL", "task")
    wait_for(lambda: "STOPPED" in containerd.ok("tasks", "list"))
    assert containerd.call("tasks", "delete", "task").returncode in (0, 137)
    containerd.ok("containers", "delete", "task")
    assert subprocess.check_output([*runtime, "list", "--quiet"]) == b""
