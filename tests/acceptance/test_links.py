"""`--link` with the stock CLI: on the default network and on user-defined ones."""

from __future__ import annotations

import pytest

from tests.harness import until


@pytest.fixture
def web(daemon, name):
    daemon.docker("run", "-d", "--name", f"{name}-db", "--expose", "5432", "-e", "PASS=secret", "busybox", "sleep", "600")
    words = ("--link", f"{name}-db:the-db", "busybox", "sleep", "600")
    daemon.docker("run", "-d", "--name", f"{name}-web", *words)
    return f"{name}-web"


def address(daemon, ref):
    return daemon.inspect(ref)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]


def test_on_the_default_network(daemon, name, web):
    env = daemon.docker("exec", web, "env").splitlines()
    ip = address(daemon, f"{name}-db")
    for line in (
        f"THE_DB_NAME=/{web}/the-db",
        f"THE_DB_PORT=tcp://{ip}:5432",
        f"THE_DB_PORT_5432_TCP_ADDR={ip}",
        "THE_DB_PORT_5432_TCP_PROTO=tcp",
        "THE_DB_ENV_PASS=secret",
    ):
        assert line in env
    assert not any(line.startswith("THE_DB_ENV_PATH") for line in env)
    short = daemon.inspect(f"{name}-db")["Id"][:12]
    assert f"{ip}\tthe-db {short} {name}-db" in daemon.docker("exec", web, "cat", "/etc/hosts").splitlines()
    assert "1 packets received" in daemon.docker("exec", web, "ping", "-c", "1", "the-db")
    assert daemon.inspect(web)["HostConfig"]["Links"] == [f"/{name}-db:/{web}/the-db"]


def test_the_address_follows(daemon, name, web):
    old = address(daemon, f"{name}-db")
    daemon.docker("stop", "-t", "0", f"{name}-db")
    daemon.docker("run", "-d", "--name", f"{name}-other", "busybox", "sleep", "600")
    daemon.docker("start", f"{name}-db")
    new = address(daemon, f"{name}-db")
    assert new != old
    hosts = until(lambda: (text := daemon.docker("exec", web, "cat", "/etc/hosts")) and new in text and text, what="hosts")
    assert f"{old}\tthe-db" not in hosts


def test_a_link_is_renamed_and_removed(daemon, name, web):
    daemon.docker("rename", f"{name}-db", f"{name}-store")
    assert daemon.inspect(web)["HostConfig"]["Links"] == [f"/{name}-store:/{web}/the-db"]
    daemon.docker("rm", "--link", f"{web}/the-db")
    assert daemon.inspect(web)["HostConfig"]["Links"] is None
    assert "the-db" not in daemon.docker("exec", web, "cat", "/etc/hosts")
    assert daemon.run_docker("rm", "--link", f"{web}/the-db").returncode == 1


def test_refusals(daemon, name, web):
    result = daemon.run_docker("run", "--rm", "--link", "nosuch:x", "busybox", "true")
    assert (result.returncode, "could not get container for nosuch" in result.stderr.decode()) == (125, True)
    daemon.docker("stop", "-t", "0", f"{name}-db")
    result = daemon.run_docker("run", "--rm", "--link", f"{name}-db:x", "busybox", "true")
    assert "Cannot link to a non running container" in result.stderr.decode()
    result = daemon.run_docker("run", "--rm", "--network", "host", "--link", f"{name}-db:x", "busybox", "true")
    assert "can't be used with links" in result.stderr.decode()


def test_on_a_network_with_names(daemon, name):
    daemon.docker("network", "create", f"{name}-net")
    daemon.docker("run", "-d", "--name", f"{name}-db", "--network", f"{name}-net", "busybox", "sleep", "600")
    words = ("--network", f"{name}-net", "busybox", "sleep", "600")
    daemon.docker("run", "-d", "--name", f"{name}-web", "--link", f"{name}-db:base", *words)
    daemon.docker("run", "-d", "--name", f"{name}-plain", *words)
    assert "1 packets received" in daemon.docker("exec", f"{name}-web", "ping", "-c", "1", "base")
    assert daemon.run_docker("exec", f"{name}-plain", "ping", "-c", "1", "base").returncode != 0
