"""`wharfie-runtime` on bundles of busybox, from the console script as an engine would call it."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from wharfie_runtime_native import cgroups
from wharfie_runtime_native.constants import PR_SET_CHILD_SUBREAPER
from wharfie_runtime_native.syscalls import prctl

from wharfie.shim.cgroups import prune

SCRIPT = Path(sys.executable).with_name("wharfie-runtime")
PARENT = f"wharfie-test-c{os.getpid()}"


def wait_for(what, seconds=20):
    """Until `what()` is true."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, what
        time.sleep(0.01)
    return found


class Runtime:
    """The command line with a state folder of its own."""

    def __init__(self, folder: Path, root: Path, base: dict) -> None:
        self.state = folder / "state"
        self.bundle = folder / "bundle"
        self.bundle.mkdir()
        self.spec = copy.deepcopy(base)
        self.spec["root"]["path"] = str(root)
        self.ids: list[str] = []

    def new(self, *args, **process):
        """Write the bundle's config.json; an id for a container of it."""
        name = f"c{uuid.uuid4().hex[:10]}"
        self.spec["linux"]["cgroupsPath"] = f"/{PARENT}/{name}"
        self.spec["process"].update(args=list(args), **process)
        self.save()
        self.ids.append(name)
        return name

    def save(self):
        (self.bundle / "config.json").write_text(json.dumps(self.spec))

    def command(self, *words):
        return [str(SCRIPT), "--root", str(self.state), *map(str, words)]

    def call(self, *words, **more):
        """The finished process, whatever became of it."""
        more = {"stdin": subprocess.DEVNULL, **more}
        return subprocess.run(self.command(*words), capture_output=True, text=True, timeout=60, check=False, **more)

    def ok(self, *words, **more):
        done = self.call(*words, **more)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def fails(self, *words, code=1):
        """The one line on stderr."""
        done = self.call(*words)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        assert len(done.stderr.splitlines()) == 1
        return done.stderr.rstrip()

    def create(self, *args, **process):
        """A created container: id and pid. Its streams are the null device."""
        name = self.new(*args, **process)
        command = self.command("create", "--bundle", self.bundle, "--pid-file", self.bundle / "pid", name)
        self.quietly(command)
        return name, int((self.bundle / "pid").read_text())

    def quietly(self, command):
        """Call what makes a container that stays: its streams are the null device and a file, no pipe that stays open."""
        with open(self.bundle / "stderr", "w+") as words:
            null = subprocess.DEVNULL
            done = subprocess.run(command, stdin=null, stdout=null, stderr=words, timeout=60, check=False)
            words.seek(0)
            assert done.returncode == 0, words.read()

    def running(self, *args, **process):
        name, pid = self.create(*(args or ("sleep", "300")), **process)
        self.ok("start", name)
        return name, pid

    def status(self, name):
        return json.loads(self.ok("state", name))["status"]

    def groups(self, name):
        found = cgroups.open_cgroup(f"{PARENT}/{name}").directories().values()
        return [folder for folder in found if Path(folder).exists()]


@pytest.fixture
def runtime(root, base, tmp_path):
    made = Runtime(tmp_path, root, base)
    yield made
    for name in made.ids:
        if (made.state / name).exists():
            made.call("delete", "--force", name)
        cgroups.open_cgroup(f"{PARENT}/{name}").delete()
    prune(PARENT)


@pytest.fixture
def adopt():
    """Be the subreaper, as conmon and containerd's shim are; waits for a process that came here and gives its exit code."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)

    def wait(pid):
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    yield wait
    prctl(PR_SET_CHILD_SUBREAPER, 0)
