"""Drivers written outside the repository, built as a wheel, installed and chosen by name: nothing in the core changes."""

from __future__ import annotations

import os

import pytest

from tests.harness import import_busybox
from tests.strangers import STRANGERS, build_wheel


@pytest.fixture(scope="module")
def acme(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    build_wheel(STRANGERS / "wharfie-acme", folder)
    return folder


@pytest.fixture
def daemon(make_daemon, acme):
    def with_acme(**config):
        daemon = make_daemon(start=False, config=config)
        daemon.extra_environment["PYTHONPATH"] = os.pathsep.join([str(acme), os.environ.get("PYTHONPATH", "")])
        daemon.start()
        import_busybox(daemon)
        return daemon

    return with_acme


def test_chosen_with_driver_flags(daemon):
    own = daemon()
    own.docker("volume", "create", "-d", "acme", "data")
    own.docker("network", "create", "-d", "acmenet", "front")
    own.docker("run", "-d", "--name", "one", "--network", "front", "-v", "data:/data", "busybox", "sleep", "600")
    own.docker("exec", "one", "sh", "-c", "echo acme > /data/file")
    address = own.inspect("one")["NetworkSettings"]["Networks"]["front"]["IPAddress"]
    own.docker("run", "--rm", "--network", "front", "busybox", "ping", "-c", "1", "-W", "3", address)
    assert own.docker("run", "--rm", "-v", "data:/data", "busybox", "cat", "/data/file") == "acme"
    assert own.docker("volume", "ls", "--filter", "driver=acme", "--format", "{{.Name}} {{.Driver}}") == "data acme"
    own.docker("rm", "-f", "one")
    own.docker("volume", "rm", "data")
    own.docker("network", "rm", "front")


def test_chosen_in_daemon_json(daemon):
    own = daemon(**{"default-volume-driver": "acme"})
    own.docker("run", "--rm", "-v", "data:/data", "busybox", "touch", "/data/x")
    assert own.docker("volume", "ls", "--format", "{{.Name}} {{.Driver}}") == "data acme"
    mountpoint = own.docker("volume", "inspect", "data", "--format", "{{.Mountpoint}}")
    assert f"{own.data}/volume/acme" in mountpoint


def test_a_volume_of_a_driver_that_is_gone(daemon):
    """The driver was uninstalled: one clear error, everything else works."""
    own = daemon()
    own.docker("volume", "create", "-d", "acme", "data")
    own.stop()
    own.extra_environment.clear()
    own.start()
    text = own.docker("run", "--rm", "-v", "data:/data", "busybox", "true", status=125, both=True)
    assert "acme" in text
    assert own.docker("run", "--rm", "-v", "other:/data", "busybox", "echo", "fine") == "fine"
    assert "data" in own.docker("volume", "ls", "-q").split()
