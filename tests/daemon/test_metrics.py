"""`metrics-addr`: what Prometheus reads there, under the names that Docker's daemon has (20.10 and later)."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.harness import Daemon, Failed, free_port, until

pytestmark = pytest.mark.root

DOCKERS = {
    "engine_daemon_container_actions_seconds": "histogram",
    "engine_daemon_container_states_containers": "gauge",
    "engine_daemon_engine_cpus_cpus": "gauge",
    "engine_daemon_engine_info": "gauge",
    "engine_daemon_engine_memory_bytes": "gauge",
    "engine_daemon_events": "counter",
    "engine_daemon_events_subscribers_total": "gauge",
    "engine_daemon_health_checks": "counter",
    "engine_daemon_health_checks_failed": "counter",
    "engine_daemon_network_actions_seconds": "histogram",
    "process_cpu_seconds": "counter",
    "process_max_fds": "gauge",
    "process_open_fds": "gauge",
    "process_resident_memory_bytes": "gauge",
    "process_start_time_seconds": "gauge",
    "process_virtual_memory_bytes": "gauge",
}
"""As `dockerd --metrics-addr` of 20.10.24 has them. A reader takes `_total` off a counter's name."""


def read(port: int) -> dict[str, float]:
    """By name and labels as Prometheus writes them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {name: families[name].type for name in DOCKERS} == DOCKERS
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in families.values()
        for sample in family.samples
    }


def test_figures(make_daemon):
    port = free_port()
    daemon = make_daemon(busybox=True, config={"metrics-addr": f"127.0.0.1:{port}"})
    states = "engine_daemon_container_states_containers state="
    actions = "engine_daemon_container_actions_seconds_count action="
    before = read(port)
    assert {before[states + name] for name in ("paused", "running", "stopped")} == {0}
    assert before[actions + "start"] == 0
    _, info = daemon.request("GET", "/info")
    assert before["engine_daemon_engine_cpus_cpus"] == info["NCPU"]
    assert before["engine_daemon_engine_memory_bytes"] == info["MemTotal"]
    labels = {"architecture": "Architecture", "daemon_id": "ID", "graphdriver": "Driver", "kernel": "KernelVersion"}
    labels |= {"os": "OperatingSystem", "os_type": "OSType", "os_version": "OSVersion", "version": "ServerVersion"}
    about = sorted([*((label, info[key]) for label, key in labels.items()), ("commit", "")])
    assert before["engine_daemon_engine_info" + "".join(f" {key}={value}" for key, value in about)] == 1

    health = ("--health-cmd", "false", "--health-interval", "100ms", "--health-retries", "1000")
    box = daemon.docker("run", "-d", *health, "busybox", "sleep", "1000")
    daemon.docker("create", "busybox", "true")
    daemon.docker("diff", box)
    until(lambda: read(port)["engine_daemon_health_checks_failed_total"] >= 2, 30)
    daemon.docker("pause", box)
    events = daemon.spawn_docker("events")
    until(lambda: read(port)["engine_daemon_events_subscribers_total"] == 1, 30)
    events.terminate()
    events.communicate()
    after = read(port)
    assert [after[states + name] for name in ("paused", "running", "stopped")] == [1, 0, 1]
    assert [after[actions + name] for name in ("create", "start", "changes", "delete", "commit")] == [2, 1, 1, 0, 0]
    assert 0 < after["engine_daemon_container_actions_seconds_sum action=start"] < 60
    assert after["engine_daemon_container_actions_seconds_bucket action=start le=+Inf"] == 1
    assert after["engine_daemon_network_actions_seconds_count action=connect"] == 1
    assert after["engine_daemon_health_checks_total"] == after["engine_daemon_health_checks_failed_total"]
    assert after["engine_daemon_events_total"] >= before["engine_daemon_events_total"] + 6
    assert after["wharfie_driver_calls_total driver=overlay2 kind=storage method=create"] == 2
    assert not [name for name in after if "_created" in name]
    daemon.docker("rm", "-f", box)
    assert read(port)[actions + "delete"] == 1


def test_nothing_else_is_served_there(make_daemon):
    port = free_port()
    make_daemon(config={"metrics-addr": f"127.0.0.1:{port}"})
    for path in ("/", "/info", "/v1.50/containers/json", "/metrics/"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20)


def test_an_address_in_use_ends_the_start(make_daemon):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        daemon: Daemon = make_daemon(start=False, config={"metrics-addr": address})
        with pytest.raises(Failed, match=f"cannot listen on metrics-addr: {address}: .*Address already in use"):
            daemon.start()
