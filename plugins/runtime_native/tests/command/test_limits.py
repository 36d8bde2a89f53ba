"""update, events, spec: what changes limits and tells of use."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from wharfie.shim.cgroups import read_int, version


def test_update_by_flags_and_by_file(runtime):
    name, _ = runtime.running()

    def data():
        event = json.loads(runtime.ok("events", "--stats", name))
        assert (event["type"], event["id"]) == ("stats", name)
        return event["data"]

    runtime.ok("update", "--memory", "64m", "--pids-limit", 33, "--cpu-share", 256, name)
    found = data()
    assert found["memory"]["usage"]["limit"] == 64 << 20
    assert found["pids"] == {"current": 1, "limit": 33}
    if version() == "v1":
        assert found["memory"]["swap"]["usage"] >= found["memory"]["kernel"]["usage"] > 0
    assert found["cpu"]["usage"]["total"] > 0
    file, share = ("cpu.weight", 10) if version() == "v2" else ("cpu.shares", 256)
    assert share in [read_int(group, file) for group in runtime.groups(name)]
    given = json.dumps({"memory": {"limit": 32 << 20}})
    command = runtime.command("update", "--resources", "-", name)
    subprocess.run(command, input=given, text=True, check=True, timeout=60)
    assert data()["memory"]["usage"]["limit"] == 32 << 20


def test_events_tell_of_memory_kills_and_end_with_the_container(runtime):
    runtime.spec["linux"]["resources"]["memory"] = {"limit": 16 << 20}
    name, _ = runtime.running("sh", "-c", "while [ ! -e /go ]; do sleep 0.05; done; tail -c 64m /dev/zero | wc -c; sleep 1")
    with subprocess.Popen(runtime.command("events", "--interval", "1h", name), stdout=subprocess.PIPE, text=True) as events:
        assert json.loads(events.stdout.readline())["type"] == "stats"
        (Path(runtime.spec["root"]["path"]) / "go").touch()
        assert json.loads(events.stdout.readline()) == {"type": "oom", "id": name}
        assert events.wait(30) == 0


def test_spec_is_a_bundle_that_runs(runtime):
    folder = runtime.bundle / "new"
    folder.mkdir()
    runtime.ok("spec", "--bundle", folder)
    assert "Remove it first" in runtime.fails("spec", "--bundle", folder)
    config = json.loads((folder / "config.json").read_text())
    config["process"].update(terminal=False, args=["sh", "-c", "hostname; touch /x 2>/dev/null || echo read-only"])
    config["root"]["path"] = runtime.spec["root"]["path"]
    (folder / "config.json").write_text(json.dumps(config))
    runtime.ids.append("speced")
    assert runtime.ok("run", "--bundle", folder, "speced") == "wharfie\nread-only\n"


def test_a_rootless_spec_has_the_caller_as_its_root_and_the_hosts_network(runtime):
    folder = runtime.bundle / "new"
    folder.mkdir()
    runtime.ok("spec", "--rootless", "--bundle", folder)
    config = json.loads((folder / "config.json").read_text())
    assert "resources" not in config["linux"]
    script = "id -u; cat /proc/self/uid_map; ls /sys/class/net; stat -c %g /dev/pts/ptmx"
    config["process"].update(terminal=False, args=["sh", "-c", script])
    config["root"]["path"] = runtime.spec["root"]["path"]
    (folder / "config.json").write_text(json.dumps(config))
    runtime.ids.append("rootless")
    user, mapping, *links, group = runtime.ok("run", "--bundle", folder, "rootless").splitlines()
    assert (user, mapping.split(), group) == ("0", ["0", "0", "1"], "0")
    assert links == sorted(entry.name for entry in Path("/sys/class/net").iterdir())


@pytest.mark.skipif(shutil.which("runc") is None, reason="needs runc")
@pytest.mark.parametrize("rootless", [False, True])
def test_a_spec_is_runcs(runtime, rootless):
    """But for what is newer in ours: a cgroup namespace, no ambient capabilities."""
    made = []
    for command in (["runc"], runtime.command()):
        folder = runtime.bundle / str(len(made))
        folder.mkdir()
        subprocess.run([*command, "spec", *(["--rootless"] if rootless else [])], cwd=folder, check=True, timeout=60)
        config = json.loads((folder / "config.json").read_text())
        for key in ("ociVersion", "hostname"):
            del config[key]
        config["process"]["capabilities"].pop("ambient", None)
        config["linux"]["namespaces"] = [entry for entry in config["linux"]["namespaces"] if entry["type"] != "cgroup"]
        for entry in config["mounts"]:
            entry["options"] = sorted(entry.get("options", ()))
        made.append(config)
    assert made[0] == made[1]


@pytest.mark.skipif(shutil.which("runc") is None or version() == "v2", reason="needs runc, and version 1")
def test_what_is_told_is_what_runc_tells(runtime):
    """Field by field, but for those of cpusets and of single processors' modes, which are runc's alone."""
    state = runtime.bundle / "runc"
    name, _ = runtime.running()
    theirs = runtime.new("sleep", "300")
    runc = ["runc", "--root", str(state)]
    runtime.quietly([*runc, "run", "--detach", "--bundle", str(runtime.bundle), theirs])
    try:
        for words, *apart in (
            (["state"],),
            (["list", "--format", "json"],),
            (["ps", "--format", "json"],),
            (["events", "--stats"], ".data.cpuset", ".data.cpu.usage.percpu_", ".raw"),
            (["features"], ".annotations", ".linux.cgroup.rdma", "Flags list", ".linux.intelRdt", ".linux.mountExtensions"),
        ):
            told = [
                json.loads(subprocess.check_output([*command, *words, *more], timeout=60))
                for command, more in ((runc, [theirs]), (runtime.command(), [name]))
                for more in [more if words[0] in ("state", "ps", "events") else []]
            ]
            shapes = [{path for path in _shape(value) if not any(part in path for part in apart)} for value in told]
            extra = set() if words[0] != "events" else shapes[1] - shapes[0]  # runc leaves out what is zero
            assert shapes[0] == shapes[1] - extra, words
    finally:
        subprocess.run([*runc, "delete", "--force", theirs], check=True, timeout=60)


def _shape(value, path=""):
    """Every field's path and the kind of what is in it."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _shape(entry, f"{path}.{key}")
    else:
        yield f"{path} {type(value).__name__ if value is not None else ''}"
