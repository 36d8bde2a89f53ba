"""Devices with the stock CLI: --device with a node and with a folder, CDI by name, --gpus."""

from __future__ import annotations

import json
import os
import stat

import pytest

GPU = {
    "cdiVersion": "0.6.0",
    "kind": "acme.com/gpu",
    "containerEdits": {"env": ["ACME=common"]},
    "devices": [
        {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/acme0", "hostPath": "/dev/zero"}]}},
        {
            "name": "1",
            "containerEdits": {
                "deviceNodes": [
                    {"path": "/dev/acme1", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "permissions": "rw"}
                ],
                "additionalGids": [4242],
            },
        },
        {"name": "all", "containerEdits": {"env": ["ACME_ALL=yes"]}},
    ],
}
YAML = """
cdiVersion: "0.5.0"
kind: acme.com/disk
devices:
  - name: files
    containerEdits:
      mounts:
        - hostPath: {folder}
          containerPath: /acme
          options: [ro, nosuid]
"""


@pytest.fixture(scope="module")
def equipped(tmp_path_factory):
    from tests.harness import Daemon, import_busybox, running

    root = tmp_path_factory.mktemp("cdi")
    folder = root / "cdi"
    folder.mkdir()
    (folder / "gpu.json").write_text(json.dumps(GPU))
    (root / "files").mkdir()
    (root / "files/hello").write_text("hello")
    (folder / "disk.yaml").write_text(YAML.format(folder=root / "files"))
    (folder / "broken.json").write_text("{")
    (folder / "twice-a.json").write_text(json.dumps(GPU | {"kind": "acme.com/twice"}))
    (folder / "twice-b.json").write_text(json.dumps(GPU | {"kind": "acme.com/twice"}))
    with running(Daemon(root / "daemon", config={"cdi-spec-dirs": [str(folder)]})) as daemon:
        import_busybox(daemon)
        yield daemon


def run(daemon, *words):
    return daemon.docker("run", "--rm", *words)


def test_by_name(equipped):
    script = "stat -c '%t:%T' /dev/acme0; echo $ACME; head -c 1 /dev/acme0 | wc -c; id -G"
    out = run(equipped, "--device", "acme.com/gpu=0", "--device", "acme.com/gpu=1", "busybox", "sh", "-c", script)
    assert out.splitlines() == ["1:5", "common", "1", "0 4242"]
    assert run(equipped, "--device", "acme.com/gpu=1", "busybox", "stat", "-c", "%a %t:%T", "/dev/acme1") == "640 1:3"


def test_mounts_of_a_yaml_description(equipped):
    out = run(equipped, "--device", "acme.com/disk=files", "busybox", "sh", "-c", "cat /acme/hello; touch /acme/x; true")
    assert out == "hello"


def test_gpus(equipped):
    assert run(equipped, "--gpus", "all", "busybox", "sh", "-c", "echo $ACME_ALL") == "yes"
    assert run(equipped, "--gpus", "1", "busybox", "sh", "-c", "ls /dev | grep acme") == "acme0"
    assert run(equipped, "--gpus", '"device=1"', "busybox", "sh", "-c", "ls /dev | grep acme") == "acme1"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--device", "acme.com/gpu=9"), "unresolvable CDI devices acme.com/gpu=9"),
        (("--device", "acme.com/twice=0"), "twice-b.json describe it"),
        (("--gpus", "driver=nvidia,count=1"), 'could not select device driver "nvidia" with capabilities: [[gpu]]'),
        (("--gpus", "7"), "7 devices of acme.com/gpu are asked for"),
        (("--device", "/dev/nosuch"), "no such file or directory"),
        (("--device", "/etc/passwd"), "not a device node"),
    ],
)
def test_what_is_not_there(equipped, words, text):
    result = equipped.run_docker("run", "--rm", *words, "busybox", "true")
    assert result.returncode in (125, 127)  # the CLI takes 127 from the words "no such file"
    assert text in result.stderr.decode()


def test_without_descriptions(daemon):
    result = daemon.run_docker("run", "--rm", "--gpus", "all", "busybox", "true")
    assert (result.returncode, "could not select device driver" in result.stderr.decode()) == (125, True)


def test_a_node_and_a_folder(daemon, tmp_path):
    folder = tmp_path / "devices"
    folder.mkdir()
    for number in (3, 5):
        os.mknod(folder / f"d{number}", stat.S_IFCHR | 0o666, os.makedev(1, number))
    out = daemon.docker(
        "run", "--rm", "--device", f"{folder}:/dev/own", "--device", "/dev/full:/dev/voll:r", "busybox",
        "sh", "-c", "stat -c '%n %t:%T' /dev/own/* /dev/voll; head -c 2 /dev/own/d5 | wc -c; (echo x > /dev/voll) 2>&1",
        status=1,
    )  # fmt: skip
    lines = out.splitlines()
    assert lines[:4] == ["/dev/own/d3 1:3", "/dev/own/d5 1:5", "/dev/voll 1:7", "2"]
