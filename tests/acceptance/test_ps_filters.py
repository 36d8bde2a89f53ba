"""Every filter of `docker ps`, with the stock CLI."""

from __future__ import annotations

import time

import pytest

from tests.harness import until


@pytest.fixture(scope="module")
def fleet(daemon):
    """Containers in all states, each with something to be found by. Short names → names."""
    prefix = f"psf{time.time_ns() % 10**8}"
    daemon.docker("network", "create", f"{prefix}-net")

    def run(short, *words, how=("run", "-d")):
        daemon.docker(*how, "--name", f"{prefix}-{short}", "--label", f"fleet={prefix}", *words)

    run("up", "--label", "a=b", "--expose", "9999", "busybox", "sleep", "600")
    run("published", "-p", "127.0.0.1::8080", "busybox", "sleep", "600")
    run("volume", "-v", f"{prefix}-vol:/data", "--network", f"{prefix}-net", "busybox", "sleep", "600")
    run("healthy", "--health-cmd", "true", "--health-interval", "100ms", "busybox", "sleep", "600")
    run("ill", "--health-cmd", "false", "--health-interval", "100ms", "--health-retries", "1", "busybox", "sleep", "600")
    run("paused", "busybox", "sleep", "600")
    run("restarting", "--restart", "always", "busybox", "false")
    run("seven", "busybox", "sh", "-c", "exit 7")
    run("made", "busybox", "true", how=("create",))
    daemon.docker("pause", f"{prefix}-paused")
    daemon.docker("commit", f"{prefix}-made", f"{prefix}-image")
    run("child", f"{prefix}-image", "sleep", "600")
    until(lambda: daemon.inspect(f"{prefix}-seven")["State"]["Status"] == "exited", what="the end")
    for short, state in (("healthy", "healthy"), ("ill", "unhealthy")):
        until(lambda s=short, w=state: daemon.inspect(f"{prefix}-{s}")["State"]["Health"]["Status"] == w, what=state)
    yield prefix
    for container in daemon.docker("ps", "-aq", "--filter", f"label=fleet={prefix}").split():
        daemon.run_docker("rm", "-fv", container)
    daemon.run_docker("rmi", "-f", f"{prefix}-image")
    daemon.run_docker("network", "rm", f"{prefix}-net")
    daemon.run_docker("volume", "rm", f"{prefix}-vol")


ALL = {"up", "published", "volume", "healthy", "ill", "paused", "restarting", "seven", "made", "child"}
RUNNING = ALL - {"seven", "made"}


def ps(daemon, prefix, *filters, everything=True):
    words = ["ps", "--no-trunc", "--format", "{{.Names}}", "--filter", f"label=fleet={prefix}"]
    for text in filters:
        words += ["--filter", text.replace("{p}", prefix)]
    found = daemon.docker(*words, *(["-a"] if everything else [])).split()
    return {name.removeprefix(f"{prefix}-") for name in found}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ((), ALL),
        (("name={p}-up",), {"up"}),
        (("name=^/?{p}-(up|ill)$",), {"up", "ill"}),
        (("name={p}-up", "name={p}-seven"), {"up", "seven"}),
        (("label=a",), {"up"}),
        (("label=a=b",), {"up"}),
        (("label=a=c",), set()),
        (("status=running",), RUNNING - {"paused", "restarting"}),
        (("status=paused",), {"paused"}),
        (("status=restarting",), {"restarting"}),
        (("status=created",), {"made"}),
        (("status=exited",), {"seven"}),
        (("status=created", "status=paused"), {"made", "paused"}),
        (("exited=7",), {"seven"}),
        (("exited=0",), set()),
        (("health=healthy",), {"healthy"}),
        (("health=unhealthy",), {"ill"}),
        (("health=none",), ALL - {"healthy", "ill"}),
        (("ancestor={p}-image",), {"child"}),
        (("ancestor=busybox", "name={p}-(child|up)"), {"child", "up"}),
        (("ancestor=nosuch",), set()),
        (("before={p}-published",), {"up"}),
        (("since={p}-made",), {"child"}),
        (("network={p}-net",), {"volume"}),
        (("network=none",), set()),
        (("volume={p}-vol",), {"volume"}),
        (("volume=/data",), {"volume"}),
        (("expose=9999",), {"up"}),
        (("expose=9990-9999/tcp",), {"up"}),
        (("expose=9999/udp",), set()),
        (("publish=8080",), set()),  # the container's port: what counts is the host's
        (("publish=1-65535/tcp",), {"published"}),
        (("publish=8080/udp",), set()),
        (("is-task=false",), ALL),
        (("is-task=true",), set()),
        (("status=running", "health=none", "label=a"), {"up"}),
    ],
)
def test_filter(daemon, fleet, filters, expected):
    if expected and "restarting" in expected:
        until(lambda: "restarting" in ps(daemon, fleet, *filters), what="a restart under way")
        return
    found = ps(daemon, fleet, *filters)
    assert found - {"restarting"} == expected - {"restarting"}


def test_by_id(daemon, fleet):
    found = daemon.inspect(f"{fleet}-up")["Id"]
    assert ps(daemon, fleet, f"id={found}") == {"up"}
    assert ps(daemon, fleet, f"id={found[:12]}") == {"up"}


def test_only_running_ones_unless_asked(daemon, fleet):
    assert ps(daemon, fleet, everything=False) - {"restarting"} == RUNNING - {"restarting"}
    assert ps(daemon, fleet, "status=exited", everything=False) == {"seven"}
    assert ps(daemon, fleet, "exited=7", everything=False) == {"seven"}
    newest = daemon.docker("ps", "-n", "2", "--format", "{{.Names}}", "--filter", f"label=fleet={fleet}").split()
    assert newest == [f"{fleet}-child", f"{fleet}-made"]
    last = daemon.docker("ps", "-l", "--format", "{{.Names}}", "--filter", f"label=fleet={fleet}")
    assert last == f"{fleet}-child"


@pytest.mark.parametrize("text", ["status=nosuch", "health=nosuch", "exited=x", "nosuch=1", "is-task=maybe", "expose=x"])
def test_refused(daemon, text):
    assert daemon.run_docker("ps", "--filter", text).returncode == 1


@pytest.mark.parametrize("name", ["before", "since"])
def test_relative_to_nothing(daemon, name):
    result = daemon.run_docker("ps", "--filter", f"{name}=nosuch")
    assert (result.returncode, b"No such container: nosuch" in result.stderr) == (1, True)
