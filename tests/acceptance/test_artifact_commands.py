"""`wharfie artifact`: from the command line to Debian's registry and back."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Daemon
from tests.registries import Registry

pytestmark = pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry")


@pytest.fixture
def registry(tmp_path) -> Iterator[str]:
    made = Registry(tmp_path / "registry")
    yield made.address
    made.close()


def wharfie(daemon: Daemon, folder: Path, *words: str | Path, status: int = 0) -> str:
    program = Path(sys.executable).with_name("wharfie")
    done = subprocess.run(
        [program, "artifact", *words], cwd=folder, env=daemon.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def test_push_attach_list_pull(daemon, registry, tmp_path) -> None:
    files = tmp_path / "files"
    (files / "docs").mkdir(parents=True)
    (files / "docs/manual.txt").write_text("read me\n")
    (files / "sbom.json").write_text("{}\n")
    name = f"{registry}/team/docs:1"
    pushed = wharfie(daemon, files, "push", name, "docs/manual.txt:text/plain", files / "sbom.json")
    assert "Digest: sha256:" in pushed
    out = wharfie(daemon, tmp_path, "pull", "-o", "there", name)
    assert pushed.splitlines()[-1] in out
    assert (tmp_path / "there/docs/manual.txt").read_text() == "read me\n"
    assert (tmp_path / "there/sbom.json").read_text() == "{}\n"
    assert "sha256" not in wharfie(daemon, tmp_path, "ls", name)
    kind = "application/spdx+json"
    attached = wharfie(daemon, files, "attach", "--artifact-type", kind, "-a", "by=us", name, "sbom.json")
    listed = wharfie(daemon, files, "ls", name)
    assert attached.split()[-1] in listed and kind in listed and "by=us" in listed
    assert kind not in wharfie(daemon, files, "ls", "--artifact-type", "a/b", name)
    assert "there is no such file" in wharfie(daemon, files, "push", name, "nothing", status=1)
    assert "manifest unknown" in wharfie(daemon, files, "pull", f"{registry}/team/docs:2", status=1)
    assert not any(row["Kind"] == "unused" for row in daemon.request("GET", "/wharfie/content")[1])
