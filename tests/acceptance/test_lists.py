"""`GET /containers/json` and inspect are put together from text that is kept: whatever changes must show at once."""

from __future__ import annotations

import json
from typing import Any

from tests.harness import until


def row(daemon, container: str, version: str = "v1.50", query: str = "all=1") -> dict[str, Any]:
    status, rows = daemon.request("GET", f"/{version}/containers/json?{query}")
    assert status == 200, rows
    return next(entry for entry in rows if entry["Id"] == container)


def test_a_row_shows_each_change(daemon, name):
    tag = f"{name}:1"
    daemon.docker("tag", "busybox:latest", tag)
    words = ("-l", 'a=é"\\', "--annotation", "b=c", "--expose", "7/udp", "-p", "80")
    container = daemon.docker("create", "--name", name, *words, tag, "sh", "-c", "sleep 1000")
    try:
        made = row(daemon, container)
        assert made["Names"] == [f"/{name}"]
        assert (made["Image"], made["Labels"], made["Command"]) == (tag, {"a": 'é"\\'}, "sh -c 'sleep 1000'")
        assert (made["State"], made["Status"], made["Ports"]) == ("created", "Created", [])
        assert made["HostConfig"] == {"NetworkMode": "bridge", "Annotations": {"b": "c"}}
        assert row(daemon, container, "v1.45")["HostConfig"] == {"NetworkMode": "bridge"}
        assert made["NetworkSettings"]["Networks"]["bridge"]["NetworkID"] == ""
        assert "SizeRootFs" not in made
        assert row(daemon, container, query="all=1&size=1")["SizeRootFs"] > 0
        # Its name, and its image's.
        daemon.docker("rename", name, f"{name}-2")
        assert row(daemon, container)["Names"] == [f"/{name}-2"]
        daemon.docker("rmi", tag)
        assert row(daemon, container)["Image"] == made["ImageID"]
        # Its state, ports and networks.
        daemon.docker("network", "create", f"{name}-net")
        daemon.docker("start", container)
        started = row(daemon, container)
        assert started["State"] == "running"
        assert started["Status"].startswith("Up ")
        assert {port["PrivatePort"] for port in started["Ports"]} == {80, 7}
        assert started["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        daemon.docker("network", "connect", f"{name}-net", container)
        assert set(row(daemon, container)["NetworkSettings"]["Networks"]) == {"bridge", f"{name}-net"}
        daemon.docker("network", "disconnect", "bridge", container)
        assert set(row(daemon, container)["NetworkSettings"]["Networks"]) == {f"{name}-net"}
        daemon.docker("pause", container)
        assert row(daemon, container)["Status"].endswith("(Paused)")
        daemon.docker("unpause", container)
        daemon.docker("kill", container)
        daemon.docker("wait", container)
        ended = row(daemon, container)
        assert (ended["State"], ended["Ports"]) == ("exited", [])
        assert ended["Status"].startswith("Exited (137) ")
        assert list(ended) == list(made)
    finally:
        daemon.run_docker("rm", "-f", container)


def test_a_list_and_the_disk_usage_agree(daemon, name):
    """`docker system df -v` shows the same rows, made in another way."""
    container = daemon.docker("create", "--name", name, "busybox", "true")
    _, usage = daemon.request("GET", "/v1.50/system/df?type=container")
    of_usage = next(entry for entry in usage["Containers"] if entry["Id"] == container)
    assert json.dumps(row(daemon, container, query="all=1&size=1")) == json.dumps(of_usage)


def test_an_inspection_shows_each_change(daemon, name):
    other = daemon.docker("create", "--name", f"{name}-other", "busybox", "sleep", "1000")
    words = ("--link", f"{name}-other:near", "-l", 'a=é"\\', "--health-cmd", "true", "--health-interval", "100ms")
    daemon.docker("start", other)
    container = daemon.docker("create", "--name", name, *words, "busybox", "sleep", "1000")

    def found(query: str = "") -> dict[str, Any]:
        status, document = daemon.request("GET", f"/v1.50/containers/{container}/json{query}")
        assert status == 200
        return document

    made = found()
    assert (made["State"]["Status"], made["ResolvConfPath"], made["Config"]["Labels"]) == ("created", "", {"a": 'é"\\'})
    assert (made["Path"], made["Args"], made["ExecIDs"], made["RestartCount"]) == ("sleep", ["1000"], None, 0)
    assert made["HostConfig"]["Links"] == [f"/{name}-other:/{name}/near"]
    assert "SizeRw" not in made
    assert found("?size=1")["SizeRootFs"] > 0
    daemon.docker("rename", f"{name}-other", f"{name}-next")
    daemon.docker("rename", name, f"{name}-2")
    assert found()["Name"] == f"/{name}-2"
    assert found()["HostConfig"]["Links"] == [f"/{name}-next:/{name}-2/near"]
    daemon.docker("start", container)
    started = found()
    assert (started["State"]["Running"], started["State"]["Pid"] > 0, started["ResolvConfPath"] != "") == (True,) * 3
    assert started["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert until(lambda: found()["State"]["Health"]["Status"] == "healthy")
    _, execution = daemon.request("POST", f"/v1.50/containers/{container}/exec", {"Cmd": ["sleep", "1000"]})
    daemon.request("POST", f"/v1.50/exec/{execution['Id']}/start", {"Detach": True})
    assert found()["ExecIDs"] == [execution["Id"]]
    daemon.docker("update", "--memory", "64m", "--memory-swap", "64m", container)
    assert found()["HostConfig"]["Memory"] == 64 << 20
    daemon.docker("kill", container)
    daemon.docker("wait", container)
    ended = found()
    assert (ended["State"]["Status"], ended["State"]["ExitCode"], ended["ExecIDs"]) == ("exited", 137, None)
    assert [key for key in ended if key in made] == list(made)
