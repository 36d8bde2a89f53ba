"""Images go to other tools and come back: skopeo in every format both of us know, umoci and podman where installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.harness import Daemon

pytestmark = pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")


_SOCKET_THERE = 'mount -t tmpfs none /run && ln -s "$0" /run/docker.sock && exec "$@"'
"""podman looks for a daemon there and nowhere else."""


def run(*words: str | Path, cwd: Path | None = None) -> str:
    result = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, timeout=120, cwd=cwd)
    assert result.returncode == 0, f"{words}: {result.stderr}"
    return result.stdout


def copy(source: str, target: str, *options: str) -> None:
    run("skopeo", "--insecure-policy", "copy", "--quiet", *options, source, target)


@pytest.fixture
def image(daemon):
    """A name of our own for the shared image; what is loaded under it goes again."""
    name = "interop.test/box:1"
    daemon.docker("tag", "busybox", name)
    yield name
    daemon.run_docker("rmi", "-f", name)


@pytest.fixture
def short():
    """A folder whose path is as short as podman wants it."""
    with tempfile.TemporaryDirectory(prefix="wh-") as folder:
        yield Path(folder)


def diff_ids(daemon: Daemon, name: str) -> list[str]:
    return json.loads(daemon.docker("image", "inspect", "--format", "{{json .RootFS.Layers}}", name))


def works(daemon: Daemon, name: str) -> bool:
    return daemon.docker("run", "--rm", "--network", "none", name, "echo", "there") == "there"


def archive(daemon: Daemon, name: str, folder: Path) -> Path:
    daemon.docker("save", "-o", folder / "saved.tar", name)
    return folder / "saved.tar"


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci"])
def test_what_we_save_is_read_by_skopeo_and_comes_back(daemon, image, tmp_path, form) -> None:
    before = diff_ids(daemon, image)
    saved = archive(daemon, image, tmp_path)
    daemon.docker("rmi", image)
    if form == "oci":
        run("tar", "-C", tmp_path, "-xf", saved, "--one-top-level=layout")
        source = f"oci:{tmp_path / 'layout'}"
    else:
        source = f"{form}:{saved}"
    assert len(json.loads(run("skopeo", "inspect", source))["Layers"]) == len(before)
    copy(source, f"docker-archive:{tmp_path / 'back.tar'}:{image}")
    assert image in daemon.docker("load", "-i", tmp_path / "back.tar")
    assert diff_ids(daemon, image) == before
    assert works(daemon, image)


def test_an_oci_archive_of_skopeo_is_loaded(daemon, image, tmp_path) -> None:
    before = diff_ids(daemon, image)
    saved = archive(daemon, image, tmp_path)
    daemon.docker("rmi", image)
    copy(f"docker-archive:{saved}", f"oci-archive:{tmp_path / 'theirs.tar'}:{image}")
    daemon.docker("load", "-i", tmp_path / "theirs.tar")
    assert diff_ids(daemon, image) == before
    assert works(daemon, image)


def test_an_oci_layout_of_skopeo_is_loaded(daemon, image, tmp_path) -> None:
    before = diff_ids(daemon, image)
    saved = archive(daemon, image, tmp_path)
    daemon.docker("rmi", image)
    copy(f"docker-archive:{saved}", f"oci:{tmp_path / 'layout'}:{image}")
    run("tar", "-C", tmp_path / "layout", "-cf", tmp_path / "layout.tar", ".")
    daemon.docker("load", "-i", tmp_path / "layout.tar")
    assert diff_ids(daemon, image) == before
    assert works(daemon, image)


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci"])
def test_docker_daemon_both_ways(daemon, image, tmp_path, form) -> None:
    """skopeo speaks to us as to dockerd: GET /images/get, POST /images/load."""
    before = diff_ids(daemon, image)
    host = daemon.environment["DOCKER_HOST"]
    there = f"{form}:{tmp_path / 'there'}:{image}"
    copy(f"docker-daemon:{image}", there, "--src-daemon-host", host)
    daemon.docker("rmi", image)
    copy(there, f"docker-daemon:{image}", "--dest-daemon-host", host)
    assert diff_ids(daemon, image) == before
    assert works(daemon, image)


@pytest.mark.skipif(shutil.which("umoci") is None, reason="needs umoci")
def test_umoci(daemon, image, tmp_path) -> None:
    """It unpacks what we save as it is, and we load the layout that it wrote, and what skopeo makes of it."""
    run("tar", "-C", tmp_path, "-xf", archive(daemon, image, tmp_path), "--one-top-level=layout")
    layout = tmp_path / "layout"
    run("umoci", "unpack", "--image", f"{layout}:1", tmp_path / "bundle")
    rootfs = tmp_path / "bundle" / "rootfs"
    assert (rootfs / "bin/busybox").exists()
    (rootfs / "added").write_text("by umoci\n")
    run("umoci", "repack", "--image", f"{layout}:2", tmp_path / "bundle")
    copy(f"oci:{layout}:2", f"oci:{tmp_path / 'theirs'}:2")
    run("tar", "-C", tmp_path / "theirs", "-cf", tmp_path / "theirs.tar", ".")
    said = daemon.docker("load", "-i", tmp_path / "theirs.tar")
    assert said.startswith("Loaded image ID: sha256:")  # a tag alone names nothing
    copy(f"oci:{layout}:2", f"docker-archive:{tmp_path / 'back.tar'}:{image}")
    daemon.docker("load", "-i", tmp_path / "back.tar")
    assert daemon.docker("images", "-q", "--no-trunc", image) == said.removeprefix("Loaded image ID: ")
    assert len(diff_ids(daemon, image)) == 2
    assert daemon.docker("run", "--rm", "--network", "none", image, "cat", "/added") == "by umoci"


@pytest.mark.skipif(shutil.which("podman") is None, reason="needs podman")
def test_podman(daemon, image, tmp_path, short) -> None:
    """It reads what we save and gives, and we what it writes and gives, in every format."""
    before = diff_ids(daemon, image)
    saved = archive(daemon, image, tmp_path)
    run("tar", "-C", short, "-xf", saved, "--one-top-level=layout")
    podman = ("podman", "--root", short / "root", "--runroot", short / "run", "--storage-driver", "vfs")
    with_socket = ("unshare", "--mount", "sh", "-c", _SOCKET_THERE, daemon.socket, *podman)
    sources = (f"docker-archive:{saved}", f"oci-archive:{saved}", "oci:layout", f"docker-daemon:{image}")
    try:
        for source in sources:
            key = run(*(with_socket if "daemon" in source else podman), "pull", "-q", source, cwd=short).strip()
            assert json.loads(run(*podman, "image", "inspect", key))[0]["RootFS"]["Layers"] == before, source
        for form in ("docker-archive", "oci-archive", "oci", "docker-daemon"):
            daemon.docker("rmi", image)
            there = tmp_path / f"by-podman-{form}"
            target = f"docker-daemon:{image}" if form == "docker-daemon" else f"{form}:{there}:{image}"
            run(*(with_socket if form == "docker-daemon" else podman), "push", "-q", key, target)
            if form == "oci":
                run("tar", "-C", there, "-cf", tmp_path / "layout.tar", ".")
                there = tmp_path / "layout.tar"
            if form != "docker-daemon":
                daemon.docker("load", "-i", there)
            assert diff_ids(daemon, image) == before, form
        assert works(daemon, image)
    finally:
        run(*podman, "rmi", "-a", "-f")


def test_from_daemon_to_daemon(daemon, image) -> None:
    """skopeo reads from us and writes to us at the same time."""
    host = daemon.environment["DOCKER_HOST"]
    other = "interop.test/copy:1"
    options = ("--src-daemon-host", host, "--dest-daemon-host", host)
    copy(f"docker-daemon:{image}", f"docker-daemon:{other}", *options)
    assert diff_ids(daemon, other) == diff_ids(daemon, image)
    daemon.docker("rmi", other)
