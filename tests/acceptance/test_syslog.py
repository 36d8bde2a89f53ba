"""The log driver `syslog`, through the stock CLI."""

from __future__ import annotations

import socket
import time

import pytest

from tests.harness import until


@pytest.fixture
def server(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind(str(tmp_path / "log"))
        found.settimeout(10)
        yield found


def flags(server):
    return ("--log-driver", "syslog", "--log-opt", f"syslog-address=unixgram://{server.getsockname()}")


def test_output_arrives_with_severity_and_tag(daemon, name, server):
    words = ("--log-opt", "tag={{.Name}}", "--log-opt", "syslog-facility=local0", "--log-opt", "syslog-format=rfc5424")
    daemon.docker("run", "--name", name, *flags(server), *words, "busybox", "sh", "-c", "echo out; sleep 0.2; echo err >&2")
    first, second = server.recv(4096).decode(), server.recv(4096).decode()
    assert first.startswith("<134>1 ")
    assert first.endswith(f" {name} - out")
    assert second.startswith("<131>1 ")
    refused = daemon.docker("logs", name, status=1, both=True)
    assert "configured logging driver does not support reading" in refused


def test_a_wrong_option_and_a_wrong_address_are_told(daemon, name):
    refused = daemon.docker("create", "--log-driver", "syslog", "--log-opt", "max-size=1", "busybox", status=1, both=True)
    assert "unknown log opt 'max-size' for syslog log driver" in refused
    address = ("--log-opt", "syslog-address=tcp://127.0.0.1:1")
    refused = daemon.docker("run", "--name", name, "--log-driver", "syslog", *address, "busybox", status=125, both=True)
    assert "127.0.0.1:1" in refused


def test_a_server_that_reads_nothing_freezes_no_container(daemon, name, server):
    output = f"yes {'x' * 1000} | head -c 8000000; touch /done; sleep 600"
    daemon.docker("run", "-d", "--name", name, *flags(server), "busybox", "sh", "-c", output)
    until(lambda: daemon.run_docker("exec", name, "test", "-e", "/done").returncode == 0, 20, "the end of the output")
    began = time.monotonic()
    daemon.docker("rm", "-f", name)
    assert time.monotonic() - began < 15
