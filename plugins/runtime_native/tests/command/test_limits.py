"""update, events, spec: what changes limits and tells of use."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

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
