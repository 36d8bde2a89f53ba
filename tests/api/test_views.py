"""How the engine's models look in answers, where recorded answers do not show it."""

from __future__ import annotations

import re
from ipaddress import ip_address

import pytest

from wharfie.api.views import duration
from wharfie.api.views.container import mount_view, status_words
from wharfie.api.views.endpoint import endpoint_view, port_list_view, port_map_view
from wharfie.api.views.image import image_view, summary_view
from wharfie.api.views.network import network_view
from wharfie.api.views.stats import stats_view
from wharfie.engine.containers.traffic import parse
from wharfie.engine.model.config import Config
from wharfie.engine.model.container import Container, Health, JoinedEndpoint, MountPoint, NetworkRecord, State
from wharfie.engine.model.host import HostConfig
from wharfie.engine.model.image import Image
from wharfie.engine.model.network import EndpointIPAMConfig, EndpointSettings
from wharfie.spi.driver import ContainerFacts
from wharfie.spi.network import Attachment, Endpoint, Joined, Port

DAY = 24 * 3600
LONG_AGO = "2020-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (59 * 60, "59 minutes"),
        (3600, "About an hour"),
        (2 * 3600, "2 hours"),
        (47 * 3600, "47 hours"),
        (2 * DAY, "2 days"),
        (13 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (59 * DAY, "8 weeks"),
        (60 * DAY, "2 months"),
        (729 * DAY, "24 months"),
        (730 * DAY, "2 years"),
    ],
)
def test_durations(seconds, text):
    assert duration.words(seconds) == text


def test_times_have_any_number_of_decimals():
    assert duration.parse("1970-01-01T00:00:01Z") == 1
    assert duration.parse("1970-01-01T00:00:01.5Z") == 1.5
    assert duration.parse("1970-01-01T02:00:01.2500000001+02:00") == pytest.approx(1.25)
    assert duration.parse("1969-12-31T23:00:01-01:00") == 1
    assert duration.parse("1970-01-01T00:00:01.123456789Z") == pytest.approx(1.123456789)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (State(), "Created"),
        (State(status="created", exit_code=127), "Created"),
        (State(status="running", started_at=LONG_AGO), r"Up \d+ years"),
        (State(status="running", started_at=LONG_AGO, health=Health()), r"Up \d+ years \(health: starting\)"),
        (State(status="running", started_at=LONG_AGO, health=Health(status="healthy")), r"Up \d+ years \(healthy\)"),
        (State(status="paused", started_at=LONG_AGO), r"Up \d+ years \(Paused\)"),
        (State(status="exited", started_at=LONG_AGO, finished_at=LONG_AGO, exit_code=3), r"Exited \(3\) \d+ years ago"),
        (
            State(status="restarting", started_at=LONG_AGO, finished_at=LONG_AGO, exit_code=1),
            r"Restarting \(1\) \d+ years ago",
        ),
        (State(status="dead", started_at=LONG_AGO), "Dead"),
        (State(status="removing", started_at=LONG_AGO), "Removal In Progress"),
    ],
)
def test_status(state, text):

    assert re.fullmatch(text, status_words(state))


def joined_container(status: str = "running") -> Container:
    address = ip_address("0.0.0.0")
    endpoint = Endpoint(
        id="e", network_id="n", container=ContainerFacts(id="c", name="c"), interface="eth0", mac="", addresses=()
    )
    ports = (Port(protocol="tcp", container_port=80, host_address=address, host_port=8080),)
    joined = Joined(endpoint=endpoint, sandbox=None, attachment=Attachment(interface="eth0", mac="m"), ports=ports)
    return Container(
        id="c",
        name="c",
        created=LONG_AGO,
        image_id="sha256:0",
        config=Config(),
        host_config=HostConfig(),
        state=State(status=status, started_at=LONG_AGO),  # type: ignore[arg-type]
        storage_driver="s",
        runtime="r",
        log_driver="l",
        exposed=["80/tcp", "53/udp"],
        joined=[JoinedEndpoint(network_id="n", network="bridge", joined=joined)],
    )


def test_ports():
    container = joined_container()
    assert port_map_view(container) == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "53/udp": None}
    assert port_list_view(container) == [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"PrivatePort": 53, "Type": "udp"},
    ]
    stopped = joined_container("exited")
    assert (port_map_view(stopped), port_list_view(stopped)) == ({}, [])


def test_what_versions_differ_in():
    endpoint = EndpointSettings(ipam_config=EndpointIPAMConfig(ipv4_address="10.0.0.2"))
    assert endpoint_view(endpoint, (1, 48))["GwPriority"] == 0
    assert "GwPriority" not in endpoint_view(endpoint, (1, 47))
    assert endpoint_view(endpoint, (1, 50))["IPAMConfig"] == {"IPv4Address": "10.0.0.2"}
    network = NetworkRecord(id="n", name="n", created=LONG_AGO, driver="bridge")
    assert network_view(network, (), (1, 47))["EnableIPv4"] is True
    assert "EnableIPv4" not in network_view(network, (), (1, 46))
    image = Image(id="sha256:0", created=LONG_AGO, architecture="amd64", os="linux")
    assert summary_view(image, (1, 43))["VirtualSize"] == 0
    assert "VirtualSize" not in summary_view(image, (1, 44))
    assert image_view(image, (1, 44), "s")["ContainerConfig"]["Volumes"] is None
    assert "ContainerConfig" not in image_view(image, (1, 45), "s")
    assert summary_view(image, (1, 42))["RepoTags"] == ["<none>:<none>"]
    assert summary_view(image, (1, 43))["RepoTags"] == []


def test_mounts_without_a_volume_have_no_name():
    assert mount_view(MountPoint(type="bind", source="/a", destination="/b", mode="ro", rw=False)) == {
        "Type": "bind",
        "Source": "/a",
        "Destination": "/b",
        "Mode": "ro",
        "RW": False,
        "Propagation": "",
    }


def test_statistics():
    counters = {
        "cpu": {"usage_ns": 5, "user_ns": 3, "system_ns": 2},
        "memory": {"usage": 7, "limit": 2**63 - 1, "stats": {"cache": 1}},
        "pids": {"current": 2, "limit": 2**63 - 1},
        "blkio": [{"major": 8, "minor": 0, "op": "read", "value": 9}],
    }
    container = joined_container()
    first = stats_view(container, counters, None, host_memory=1000)
    assert first["memory_stats"] == {"usage": 7, "stats": {"cache": 1}, "limit": 1000}
    assert first["pids_stats"] == {"current": 2}
    # Version 2 counts bytes alone, and what it lacks is null; version 1 has lists.
    unified = first["blkio_stats"]
    assert unified.pop("io_service_bytes_recursive") == counters["blkio"]
    assert set(unified.values()) == {None}
    both = stats_view(container, counters | {"blkio_serviced": counters["blkio"]}, None, host_memory=1000)["blkio_stats"]
    assert both["io_serviced_recursive"] == counters["blkio"]
    assert both["sectors_recursive"] == []
    assert first["cpu_stats"]["cpu_usage"] == {"total_usage": 5, "usage_in_kernelmode": 2, "usage_in_usermode": 3}
    second = stats_view(container, counters, first, host_memory=1000)
    assert (second["preread"], second["precpu_stats"]) == (first["read"], first["cpu_stats"])


def test_traffic():
    text = (
        "Inter-|   Receive | Transmit\n"
        " face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier\n"
        "    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0  0  0\n"
        "  eth0:     736       8    1    2    0     0          0         0       54       3    4    5    0     0  0  0\n"
    )
    assert parse(text) == {
        "eth0": {
            "rx_bytes": 736,
            "rx_packets": 8,
            "rx_errors": 1,
            "rx_dropped": 2,
            "tx_bytes": 54,
            "tx_packets": 3,
            "tx_errors": 4,
            "tx_dropped": 5,
        }
    }
