"""Addresses from a file, through the stock CLI."""

from __future__ import annotations

import os


def test_a_container_gets_the_address_that_is_reserved_for_its_name(daemon, name, tmp_path):
    third = os.getpid() % 200
    file = tmp_path / "addresses.toml"
    file.write_text(
        f'[[pools]]\nsubnet = "10.194.{third}.0/24"\nranges = ["10.194.{third}.100-10.194.{third}.101"]\n'
        f'[pools.hosts]\n{name}-web = "10.194.{third}.50"\n'
    )
    options = ("--ipam-driver", "reserved", "--ipam-opt", f"file={file}")
    assert "no absolute path" in daemon.docker("network", "create", *options[:2], name, status=1, both=True)
    daemon.docker("network", "create", *options, name)

    def address(container):
        daemon.docker("run", "-d", "--network", name, "--name", f"{name}-{container}", "busybox", "sleep", "600")
        return daemon.inspect(f"{name}-{container}")["NetworkSettings"]["Networks"][name]["IPAddress"]

    assert address("web") == f"10.194.{third}.50"
    assert address("one") == f"10.194.{third}.100"
    daemon.docker("restart", "-t", "0", f"{name}-web")
    assert daemon.inspect(f"{name}-web")["NetworkSettings"]["Networks"][name]["IPAddress"] == f"10.194.{third}.50"
    assert address("two") == f"10.194.{third}.101"
    refused = daemon.docker("run", "--rm", "--network", name, "busybox", "true", status=125, both=True)
    assert "no available IPv4 addresses" in refused
