"""`wharfie content`: what a user sees of a flipped byte."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.harness import Daemon


def wharfie(daemon: Daemon, *words: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("wharfie")
    return subprocess.run([program, *words], env=daemon.environment, capture_output=True, text=True, check=False)


def test_a_flipped_byte_is_found_and_said(make_daemon) -> None:
    daemon = make_daemon(bridge=False, config={"bridge": "none"}, busybox=True)
    listed = wharfie(daemon, "content", "ls", "--no-trunc").stdout.splitlines()
    assert listed[0].split() == ["DIGEST", "KIND", "SIZE", "IMAGES"]
    assert sorted(line.split()[1] for line in listed[1:]) == ["config", "layer", "manifest"]
    clean = wharfie(daemon, "content", "verify")
    assert (clean.returncode, clean.stderr) == (0, "")
    assert clean.stdout.startswith("3 blobs, ")
    assert clean.stdout.endswith(": none damaged\n")

    digest = next(line.split()[0] for line in listed if "layer" in line)
    path = daemon.data / "content/blobs/sha256" / digest.removeprefix("sha256:")
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    found = wharfie(daemon, "content", "verify")
    assert found.returncode == 1
    assert found.stderr.startswith(f"{digest[7:19]}: damaged: layer of busybox:latest: its content is sha256:")
    assert found.stdout.endswith(": 1 damaged\n")

    mended = wharfie(daemon, "content", "repair")
    assert mended.returncode == 1
    assert "not repaired: pull or load busybox:latest again" in mended.stderr


def test_disk_usage_is_exact(make_daemon) -> None:
    """`docker system df -v`: two images that share a layer, and a container that wrote a file."""
    daemon = make_daemon(bridge=False, config={"bridge": "none"}, busybox=True)
    base = int(daemon.docker("image", "inspect", "--format", "{{.Size}}", "busybox"))
    daemon.docker("tag", "busybox", "again:1")
    daemon.docker(
        "import",
        "-",
        "other:1",
        stdin=subprocess.run(["tar", "-c", "-C", "/bin", "busybox"], check=True, capture_output=True).stdout,
    )
    other = int(daemon.docker("image", "inspect", "--format", "{{.Size}}", "other:1"))
    daemon.docker("run", "--name", "writer", "--network", "none", "busybox", "sh", "-c", "head -c 5000 /dev/zero > /file")
    status, usage = daemon.request("GET", "/system/df")
    assert status == 200
    assert usage["LayersSize"] == base + other
    sizes = {
        tuple(image["RepoTags"]): (image["Size"], image["SharedSize"], image["Containers"]) for image in usage["Images"]
    }
    assert sizes == {("again:1", "busybox:latest"): (base, 0, 1), ("other:1",): (other, 0, 0)}
    (container,) = usage["Containers"]
    assert (container["SizeRw"], container["SizeRootFs"]) == (5000, base + 5000)
    listed = daemon.docker("system", "df", "-v").splitlines()
    assert any(line.split()[:2] == ["again", "1"] and line.split()[-1] == "1" for line in listed)
