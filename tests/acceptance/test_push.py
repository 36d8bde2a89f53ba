"""docker push by the stock CLI: what it prints, with what credentials, and that others can pull it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registries import Proxy, Registry


@pytest.fixture
def registry(tmp_path) -> Iterator[Registry]:
    made = Registry(tmp_path / "registry")
    yield made
    made.close()


@pytest.fixture
def guarded(tmp_path) -> Iterator[Registry]:
    made = Registry(tmp_path / "guarded", guarded=True)
    yield made
    made.close()


@pytest.fixture
def tagged(daemon) -> Iterator[list[str]]:
    """Names that go again."""
    names: list[str] = []
    yield names
    for name in names:
        daemon.run_docker("rmi", name)


def test_push_and_pull_by_another_daemon(daemon, make_daemon, registry, tagged) -> None:
    name = f"{registry.address}/team/busybox:1"
    tagged.append(name)
    daemon.docker("tag", "busybox", name)
    said = daemon.docker("push", name).splitlines()
    assert said[0] == f"The push refers to repository [{registry.address}/team/busybox]"
    assert said[1].endswith(": Preparing")
    assert said[-2].endswith(": Pushed")
    assert said[-1].startswith("1: digest: sha256:")
    digest = said[-1].split()[2]
    again = daemon.docker("push", name).splitlines()
    assert again[-2].endswith(": Layer already exists")
    assert again[-1] == said[-1]
    assert digest in daemon.docker("image", "inspect", name)

    words = ["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{name}"]
    assert subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip() == digest

    other = make_daemon(bridge=False, config={"bridge": "none"})
    other.docker("pull", name)
    assert other.docker("image", "inspect", "--format", "{{.Id}}", name) == daemon.docker(
        "image", "inspect", "--format", "{{.Id}}", name
    )
    assert other.docker("run", "--rm", "--network", "none", name, "echo", "there") == "there"


def test_push_with_a_password(daemon, make_daemon, guarded, tagged) -> None:
    name = f"{guarded.address}/busybox:1"
    tagged.append(name)
    daemon.docker("tag", "busybox", name)
    assert daemon.docker("push", name, status=1, both=True).splitlines()[-1] == "no basic auth credentials"
    daemon.docker("login", "-u", "me", "--password-stdin", guarded.address, stdin=b"secret")
    assert ": digest: sha256:" in daemon.docker("push", name)
    daemon.docker("logout", guarded.address)


def test_what_is_said_when_the_registry_dies(daemon, registry, tagged, tmp_path) -> None:
    """Retried for some seconds, then an error on standard error and exit status 1; `wharfie artifact push` alike."""
    proxy = Proxy(registry)
    try:
        (tmp_path / "file").write_bytes(b"content")
        name = f"{proxy.address}/team/busybox:1"
        tagged.append(name)
        daemon.docker("tag", "busybox", name)
        proxy.refuse = lambda exchange: 503 if exchange.method == "PATCH" else 0
        program = Path(sys.executable).with_name("wharfie")
        words = [program, "artifact", "push", f"{proxy.address}/team/file:1", tmp_path / "file"]
        artifact = subprocess.Popen(
            words, env=daemon.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        image = daemon.run_docker("push", name)
        output, errors = artifact.communicate(timeout=60)
        assert image.returncode == artifact.returncode == 1
        assert b"Retrying in 1 second" in image.stdout and "Retrying in 1 second" in output
        said = "received unexpected HTTP status: 503 Service Unavailable"
        assert image.stderr.decode().splitlines() == [said]
        assert errors.splitlines() == [f"Error response from daemon: {said}"]
        proxy.heal()
        assert ": digest: sha256:" in daemon.docker("push", name)
        assert not any(row["Kind"] == "unused" for row in daemon.request("GET", "/wharfie/content")[1])
    finally:
        proxy.close()


def test_push_what_is_not_there(daemon) -> None:
    said = daemon.docker("push", "golden/nothing:1", status=1, both=True).splitlines()
    assert said == [
        "The push refers to repository [docker.io/golden/nothing]",
        "An image does not exist locally with the tag: golden/nothing",
    ]
