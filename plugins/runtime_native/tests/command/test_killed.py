"""SIGKILL at any instant of create: `delete --force` leaves nothing, and nobody else is harmed.

WHARFIE_CREATE_KILLS: how many instants, 6 unless told.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from pathlib import Path

from wharfie_runtime_native import cgroups

from .conftest import PARENT

COUNT = int(os.environ.get("WHARFIE_CREATE_KILLS", "6"))


def processes_of(folder):
    """Processes that have this state folder, or its container's root, open or as their root."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                links = [process / "root", process / "cwd", *(process / "fd").iterdir()]
                if any(str(link.readlink()).startswith(str(folder)) for link in links):
                    found.append(process.name)
            except OSError:
                continue
    return found


def begin(folder):
    """The moment at which there is a first trace of a container: before it the interpreter starts, and nothing is made."""
    end = time.monotonic() + 30
    while not folder.exists():
        assert time.monotonic() < end
    return time.monotonic()


def test_create_killed_at_any_instant(runtime, tmp_path):
    null = subprocess.DEVNULL
    mounts = Path("/proc/self/mountinfo").read_text().count(str(tmp_path))
    name = runtime.new("sleep", "300")
    command = runtime.command("create", "-b", runtime.bundle, name)
    with subprocess.Popen(command, stdin=null, stdout=null, stderr=null) as create:
        begun = begin(runtime.state / name)
        assert create.wait(60) == 0
        took = time.monotonic() - begun
    runtime.ok("delete", name)
    instants, seen = [], []
    for _ in range(COUNT):
        instants.append(random.uniform(0, 1.1) * took)
        with subprocess.Popen(command, stdin=null, stdout=null, stderr=null) as create:
            begin(runtime.state / name)
            time.sleep(instants[-1])
            create.kill()
        done = runtime.call("state", name)
        seen.append(json.loads(done.stdout)["status"] if done.returncode == 0 else "nothing")
        what = f"killed {instants[-1] * 1000:.1f} ms after the first trace of it, then {seen[-1]}"
        done = runtime.call("delete", "--force", name)
        assert done.returncode == 0, (what, done.stderr)
        assert not (runtime.state / name).exists(), what
        assert not runtime.groups(name), what
        assert not processes_of(tmp_path), what
        assert Path("/proc/self/mountinfo").read_text().count(str(tmp_path)) == mounts, what
    print("killed after ms:", [(round(instant * 1000, 1), state) for instant, state in zip(instants, seen, strict=True)])


def test_a_create_that_never_had_its_group_does_not_end_who_has(runtime):
    """Killed between the record and the group: the group's processes are another container's."""
    name, pid = runtime.running()
    other = "killed-early"
    (runtime.state / other).mkdir()
    record = json.loads((runtime.state / name / "state.json").read_text())
    (runtime.state / other / "state.json").write_text(json.dumps({**record, "id": other, "pid": 0, "grouped": False}))
    (runtime.state / other / "config.json").write_text(json.dumps(runtime.spec))
    assert runtime.status(other) == "stopped"
    runtime.ok("delete", "--force", other)
    assert runtime.status(name) == "running"
    assert pid in cgroups.open_cgroup(f"{PARENT}/{name}").pids()
    (runtime.state / other).mkdir()
    assert "does not exist" in runtime.fails("state", other)
    runtime.ok("delete", "--force", other)
    assert other not in runtime.ok("list", "--quiet")
