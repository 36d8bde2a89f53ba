"""Health checks with the stock CLI: states, events, `docker ps`, the log that inspect shows, and the daemon's restart."""

from __future__ import annotations

import json
import time

import pytest

from tests.harness import until

FAST = ("--health-interval", "200ms", "--health-timeout", "5s")


def health(daemon, ref):
    return daemon.inspect(ref)["State"].get("Health")


def test_healthy_then_unhealthy(daemon, name):
    began = int(time.time())
    probe = "cat /state; test -e /state"
    daemon.docker(
        "run", "-d", "--name", name, *FAST, "--health-start-period", "10m", "--health-retries", "2",
        "--health-cmd", probe, "busybox", "sleep", "600",
    )  # fmt: skip
    assert "(health: starting)" in daemon.docker("ps", "--filter", f"name={name}", "--format", "{{.Status}}")
    assert health(daemon, name)["Status"] == "starting"
    daemon.docker("exec", name, "sh", "-c", "echo fine > /state")
    until(lambda: health(daemon, name)["Status"] == "healthy", what="healthy")
    assert daemon.docker("ps", "--filter", "health=healthy", "--format", "{{.Names}}") == name
    assert daemon.docker("ps", "--format", "{{.Status}}", "--filter", f"name={name}").endswith("(healthy)")
    last = health(daemon, name)["Log"][-1]
    assert (last["ExitCode"], last["Output"]) == (0, "fine\n")
    daemon.docker("exec", name, "rm", "/state")
    until(lambda: health(daemon, name)["Status"] == "unhealthy", what="unhealthy")
    found = until(lambda: (h := health(daemon, name)) and h["FailingStreak"] > 5 and h, what="a longer streak")
    assert len(found["Log"]) == 5
    assert found["Log"][-1]["ExitCode"] == 1
    until_now = daemon.docker(
        "events", "--since", str(began), "--until", str(int(time.time()) + 1), "--filter", f"container={name}",
        "--filter", "event=health_status", "--format", "{{.Action}}",
    )  # fmt: skip
    assert until_now.split("\n") == ["health_status: healthy", "health_status: unhealthy"]
    daemon.docker("stop", "-t", "0", name)
    ended = health(daemon, name)
    time.sleep(0.6)
    assert health(daemon, name) == ended


def test_a_probe_that_takes_too_long(daemon, name):
    probe = "echo slow; sleep 100"
    words = ("--health-interval", "100ms", "--health-timeout", "300ms", "--health-retries", "1")
    daemon.docker("run", "-d", "--name", name, *words, "--health-cmd", probe, "busybox", "sleep", "60")
    found = until(lambda: (h := health(daemon, name))["Status"] == "unhealthy" and h, what="unhealthy")
    assert found["Log"][-1]["ExitCode"] == -1
    assert found["Log"][-1]["Output"] == "Health check exceeded timeout (300ms): slow\n"
    daemon.docker("pause", name)
    until(lambda: len(daemon.docker("top", name).splitlines()) <= 4, what="killed probes")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"Test": ["CMD", "true"], "Interval": 5}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"Test": ["CMD", "true"], "StartInterval": 1}, "StartInterval in Healthcheck cannot be less than 1ms"),
        ({"Test": ["CMD", "true"], "Retries": -1}, "Retries in Healthcheck cannot be negative"),
        ({"Test": ["HTTP", "x"]}, "invalid health check"),
    ],
)
def test_refused(daemon, body, text):
    status, answer = daemon.request(
        "POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"], "Healthcheck": body}
    )
    assert status == 400
    assert text in answer["message"]


def test_forms(daemon, name):
    base = {"Image": "busybox", "Cmd": ["sleep", "60"]}
    times = {"Interval": 10**8, "Retries": 1}
    cases = {
        "plain": ({"Test": ["CMD", "echo", "$HOME"], **times}, "$HOME\n"),
        "missing": ({"Test": ["CMD", "/nosuch"], **times}, "no such file or directory"),
        "long": ({"Test": ["CMD-SHELL", "yes | head -c 9000"], **times}, "y\n" * 2048),
    }
    for case, (check, _) in cases.items():
        assert daemon.request("POST", f"/containers/create?name={name}-{case}", {**base, "Healthcheck": check})[0] == 201
        daemon.docker("start", f"{name}-{case}")
    for case, (_, text) in cases.items():
        found = until(lambda case=case: health(daemon, f"{name}-{case}")["Log"], what=f"a probe of {case}")
        assert text in found[0]["Output"]
        assert len(found[0]["Output"]) <= 4096
    off = {**base, "Healthcheck": {"Test": ["NONE"]}}
    daemon.request("POST", f"/containers/create?name={name}-off", off)
    daemon.docker("start", f"{name}-off")
    assert health(daemon, f"{name}-off") is None


def test_the_start_period_forgives(daemon, name):
    words = ("--health-interval", "100ms", "--health-start-interval", "100ms", "--health-start-period", "1500ms")
    daemon.docker(
        "run", "-d", "--name", name, *words, "--health-retries", "1", "--health-cmd", "false", "busybox", "sleep", "60"
    )
    found = until(lambda: (h := health(daemon, name)) and len(h["Log"]) >= 3 and h, what="three probes")
    assert (found["Status"], found["FailingStreak"]) == ("starting", 0)
    until(lambda: health(daemon, name)["Status"] == "unhealthy", what="the end of the start period")


def test_probing_goes_on_after_the_daemon_was_killed(make_daemon):
    daemon = make_daemon(busybox=True)
    daemon.docker(
        "run",
        "-d",
        "--name",
        "hc",
        *FAST,
        "--health-retries",
        "1",
        "--health-cmd",
        "test ! -e /bad",
        "busybox",
        "sleep",
        "60",
    )
    until(lambda: health(daemon, "hc")["Status"] == "healthy", what="healthy")
    daemon.kill()
    daemon.start()
    assert health(daemon, "hc")["Status"] == "healthy"
    daemon.docker("exec", "hc", "touch", "/bad")
    until(lambda: health(daemon, "hc")["Status"] == "unhealthy", what="unhealthy")
    assert json.loads(daemon.docker("inspect", "hc"))[0]["State"]["Status"] == "running"
