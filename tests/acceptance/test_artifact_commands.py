"""`wharfie artifact`: from the command line to Debian's registry and back."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from tests.harness import Daemon
from tests.registries import Registry
from wharfie.cli.folders import Target

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
    assert "there is no such file or folder" in wharfie(daemon, files, "push", name, "nothing", status=1)
    assert "manifest unknown" in wharfie(daemon, files, "pull", f"{registry}/team/docs:2", status=1)
    assert not any(row["Kind"] == "unused" for row in daemon.request("GET", "/wharfie/content")[1])


def manifest_of(name: str) -> dict[str, Any]:
    words = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"]
    document: dict[str, Any] = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
    return document


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        data: bytes = answer.read()
        return data


def test_a_folder_there_and_back(daemon, registry, tmp_path) -> None:
    """As oras has it: one layer, with the annotations by which oras unpacks it."""
    folder = tmp_path / "here/docs"
    (folder / "below").mkdir(parents=True)
    (folder / "below/program").write_text("#!/bin/sh\n")
    (folder / "below/program").chmod(0o4755)
    (folder / "manual.txt").write_text("read me\n" * 50_000)
    (folder / "link").symlink_to("below/program")
    name = f"{registry}/team/folder:1"
    wharfie(daemon, tmp_path / "here", "push", name, "docs")
    (layer,) = manifest_of(name)["layers"]
    assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
    blob = fetched(f"http://{registry}/v2/team/folder/blobs/{layer['digest']}")
    tar = gzip.decompress(blob)
    assert layer["annotations"] == {
        "org.opencontainers.image.title": "docs",
        "io.deis.oras.content.digest": "sha256:" + hashlib.sha256(tar).hexdigest(),
        "io.deis.oras.content.unpack": "true",
    }
    with tarfile.open(fileobj=io.BytesIO(tar)) as entries:
        found = {entry.name: (entry.type, entry.uid, entry.uname) for entry in entries}
    assert found["docs/manual.txt"] == (tarfile.REGTYPE, 0, "")
    assert set(found) == {"docs", "docs/below", "docs/below/program", "docs/link", "docs/manual.txt"}

    out = wharfie(daemon, tmp_path, "pull", "-o", "there", name)
    assert "docs/manual.txt" in out
    there = tmp_path / "there/docs"
    assert (there / "manual.txt").read_text() == "read me\n" * 50_000
    assert (there / "link").readlink() == Path("below/program")
    assert (there / "below/program").stat().st_mode & 0o7100 == 0o100

    assert "several files with the name docs" in wharfie(daemon, tmp_path, "push", name, folder, there, status=1)
    os.mkfifo(folder / "pipe")
    assert "is no file, folder or link" in wharfie(daemon, tmp_path / "here", "push", name, "docs", status=1)
    (folder / "pipe").unlink()
    wharfie(daemon, folder, "push", f"{registry}/team/folder:2", ".")
    (again,) = manifest_of(f"{registry}/team/folder:2")["layers"]
    assert again["annotations"]["org.opencontainers.image.title"] == "docs"


def test_a_pull_follows_no_link(daemon, registry, tmp_path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/manual.txt").write_text("read me\n")
    name = f"{registry}/team/link:1"
    wharfie(daemon, tmp_path, "push", name, "docs/manual.txt")
    outside = tmp_path / "outside"
    outside.mkdir()
    there = tmp_path / "there"
    there.mkdir()
    (there / "docs").symlink_to(outside)
    assert "'docs' on its way is no folder" in wharfie(daemon, tmp_path, "pull", "-o", "there", name, status=1)
    assert not list(outside.iterdir())
    (there / "docs").unlink()
    (there / "docs").mkdir()
    (there / "docs/manual.txt").symlink_to(outside / "file")
    wharfie(daemon, tmp_path, "pull", "-o", "there", name)
    assert (there / "docs/manual.txt").read_text() == "read me\n"
    assert not (there / "docs/manual.txt").is_symlink() and not list(outside.iterdir())


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("../x", tarfile.REGTYPE, ""),
        ("/x", tarfile.REGTYPE, ""),
        ("a/../../x", tarfile.REGTYPE, ""),
        ("link/x", tarfile.REGTYPE, ""),
        ("x", tarfile.LNKTYPE, "../outside"),
        ("x", tarfile.LNKTYPE, "link/outside"),
    ],
)
def test_nothing_is_written_outside_whatever_the_daemon_sends(tmp_path, name, kind, link) -> None:
    (tmp_path / "outside").write_text("mine")
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, link
    target = Target(tmp_path / "there")
    (tmp_path / "there/link").symlink_to("..")
    try:
        with pytest.raises(click.ClickException):
            target.write(entry, io.BytesIO(b"x") if kind == tarfile.REGTYPE else None)
    finally:
        target.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "there"]
    assert (tmp_path / "outside").stat().st_nlink == 1
