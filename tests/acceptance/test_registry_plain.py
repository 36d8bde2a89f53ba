"""The registry driver `plain` in a daemon, through the stock CLI: with a password, and without one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.harness import free_port, until


@pytest.fixture
def registry(tmp_path) -> Iterator[str]:
    """Address of Debian's registry, which lets `me` with the password `secret` in."""
    address, folder = f"127.0.0.1:{free_port()}", tmp_path / "registry"
    folder.mkdir()
    subprocess.run(["htpasswd", "-Bbc", folder / "users", "me", "secret"], check=True, capture_output=True)
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder / 'store'}}}}}\n"
        f"http: {{addr: {address}}}\nauth: {{htpasswd: {{realm: r, path: {folder / 'users'}}}}}\n"
    )
    words = ["docker-registry", "serve", str(folder / "config.yml")]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _succeeds(["curl", "-s", "-o", "/dev/null", f"http://{address}/v2/"]), what="the registry")
        yield address
    finally:
        process.terminate()
        process.wait()


def _succeeds(words: Sequence[str]) -> bool:
    return subprocess.run(words, check=False).returncode == 0


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
