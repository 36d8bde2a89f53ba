"""`--platform` and `--tree` of the stock command line, on an image for three platforms."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from tests.images.conftest import Layout, tar_of

NAME = "platforms.test/several:1"


@pytest.fixture
def several(daemon, tmp_path):
    """The image, loaded whole."""
    newest = json.loads(daemon.docker("version", "--format", "{{json .Client.APIVersion}}"))
    if tuple(map(int, newest.split("."))) < (1, 50):
        pytest.skip(f"the docker command line speaks {newest}")
    layout = Layout()
    members = [
        (layout.image([tar_of({"for": name.encode()})], architecture=name), {"os": "linux", "architecture": name})
        for name in ("amd64", "arm64", "s390x")
    ]
    layout.tag(layout.index_of(*members), NAME)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(layout.write(tmp_path / "layout"), arcname=".")
    assert daemon.docker("load", stdin=out.getvalue()) == f"Loaded image: {NAME}"
    yield NAME
    daemon.run_docker("rmi", "-f", NAME)


def test_each_platform_by_itself(daemon, several, tmp_path) -> None:
    tree = daemon.docker("image", "ls", "--tree")
    assert [name in tree for name in ("linux/amd64", "linux/arm64/v8", "linux/s390x")] == [True] * 3
    found = daemon.docker("image", "inspect", "--platform", "linux/s390x", "--format", "{{.Architecture}}", several)
    assert found == "s390x"
    assert "step 0" in daemon.docker("history", "--platform", "linux/arm64", several)
    status, answer = daemon.request("GET", f"/images/{several}/json?manifests=1&platform=" + "%7B%22os%22:%22linux%22%7D")
    assert (status, answer["message"]) == (
        400,
        "conflicting options: manifests and platform options cannot both be set",
    )
    daemon.docker("save", "--platform", "linux/arm64", "-o", tmp_path / "one.tar", several)
    assert daemon.docker("rmi", "--platform", "linux/arm64", several).startswith("Deleted: sha256:")
    said = daemon.docker("image", "inspect", "--platform", "linux/arm64", several, status=1, both=True)
    assert "does not match the specified platform (linux/arm64/v8)" in said
    daemon.docker("rmi", several)
    daemon.docker("load", "-i", tmp_path / "one.tar")
    assert daemon.docker("image", "inspect", "--format", "{{.Architecture}}", several) == "arm64"
    made = daemon.docker("create", "--platform", "linux/arm64", several, "true")
    daemon.docker("rm", made)
