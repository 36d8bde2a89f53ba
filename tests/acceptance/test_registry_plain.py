"""The registry driver `plain` in a daemon, through the stock CLI: with a password, and without one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registries import Registry


@pytest.fixture
def registry(tmp_path) -> Iterator[str]:
    """Address of Debian's registry, which lets `me` with the password `secret` in."""
    made = Registry(tmp_path / "registry", guarded=True)
    yield made.address
    made.close()


def test_pull_by_the_plain_driver(daemon, make_daemon, registry, tmp_path: Path) -> None:
    name = f"{registry}/team/busybox:1"
    archive = tmp_path / "busybox.tar"
    daemon.docker("save", "-o", archive, "busybox")
    words = ["skopeo", "copy", "-q", "--dest-tls-verify=false", "--dest-creds=me:secret"]
    subprocess.run([*words, f"docker-archive:{archive}", f"docker://{name}"], check=True, capture_output=True)

    plain = make_daemon(bridge=False, config={"bridge": "none", "registry-driver": "plain"})
    wrong = plain.docker("login", "-u", "me", "-p", "wrong", registry, status=1, both=True)
    assert f"login attempt to {registry} failed" in wrong
    assert plain.docker("login", "-u", "me", "-p", "secret", registry).endswith("Login Succeeded")
    assert f"Downloaded newer image for {name}" in plain.docker("pull", name)
    assert plain.docker("run", "--rm", "--network", "none", name, "echo", "there") == "there"
    assert "manifest unknown" in plain.docker("pull", f"{registry}/team/busybox:2", status=1, both=True)
    plain.docker("tag", name, f"{registry}/team/busybox:3")
    assert "cannot push" in plain.docker("push", f"{registry}/team/busybox:3", status=1, both=True)
