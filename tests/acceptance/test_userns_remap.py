"""A daemon with `userns-remap`, through the stock CLI: whose the container's files and processes are, and who cannot be."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from tests.harness import Daemon, import_busybox, running, until

FIRST, COUNT = 200000, 65536
USER = "daemon"  # of every Debian; its subordinate ids are the test's own


class Remapping(Daemon):
    """Sees subuid and subgid files of the test's in place of the host's."""

    def command(self):
        ids = self.root / "ids"
        ids.write_text(f"somebody:1:1\n{USER}:{FIRST}:{COUNT}\n")
        inside = f'mount --bind {ids} /etc/subuid && mount --bind {ids} /etc/subgid && exec "$@"'
        return ["unshare", "--mount", "--propagation", "slave", "sh", "-c", inside, "sh", *super().command()]


@pytest.fixture(scope="module")
def remapping(tmp_path_factory):
    with running(Remapping(tmp_path_factory.mktemp("remap"), config={"userns-remap": USER})) as daemon:
        import_busybox(daemon)
        yield daemon


@pytest.fixture
def box(remapping):
    """A running container with a volume, a bind and a port of the host's."""
    folder = remapping.root / "bound"
    folder.mkdir(exist_ok=True)
    (folder / "file").write_text("the host's\n")
    name = "box"
    remapping.docker(
        "run",
        "-d",
        "--name",
        name,
        "--ipc",
        "shareable",
        "-v",
        "vol:/vol",
        "-v",
        f"{folder}:/bound",
        "busybox",
        "sleep",
        "300",
    )
    yield name
    remapping.docker("rm", "-fv", name)
    remapping.docker("volume", "rm", "vol")


def sh(daemon, name, script, *options):
    return daemon.docker("exec", *options, name, "sh", "-ec", script).split()


def test_the_containers_root_is_nobody_on_the_host(remapping, box):
    pid = remapping.inspect(box)["State"]["Pid"]
    assert os.stat(f"/proc/{pid}").st_uid == FIRST
    assert sh(remapping, box, "id -u; cat /proc/self/uid_map") == ["0", "0", str(FIRST), str(COUNT)]
    assert sh(remapping, box, "id -u; id -g", "--user", "7:8") == ["7", "8"]
    root = remapping.docker("info", "--format", "{{.DockerRootDir}}")
    assert root == str(remapping.data / f"{FIRST}.{FIRST}")
    assert "name=userns" in remapping.docker("info", "--format", "{{.SecurityOptions}}")


def test_files_are_the_containers_own_and_plain_on_the_disk(remapping, box):
    """Root's in the image, in volumes and in what it makes; the host's are nobody's, and stay so."""
    files = "/bin/busybox /made /vol/made /etc/hosts"
    script = f"touch /made /vol/made; chown 5:6 /made; echo x >> /etc/hosts; stat -c %u:%g {files}"
    assert sh(remapping, box, script) == ["0:0", "5:6", "0:0", "0:0"]
    assert sh(remapping, box, "stat -c %u:%g /bound/file") == ["65534:65534"]
    with pytest.raises(AssertionError, match="Permission denied"):
        sh(remapping, box, "echo mine > /bound/file")
    folder = Path(remapping.docker("volume", "inspect", "--format", "{{.Mountpoint}}", "vol"))
    assert (folder / "made").stat().st_uid == 0
    assert (
        remapping.docker("run", "--rm", "--userns=host", "-v", "vol:/vol", "busybox", "stat", "-c", "%u", "/vol/made")
        == "0"
    )


def test_copying_and_committing_know_of_no_mapping(remapping, box, tmp_path):
    sh(remapping, box, "echo hi > /made; chown 5:6 /made")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("sent")
        entry.uid, entry.gid = 3, 4
        archive.addfile(entry)
    remapping.docker("cp", "-a", "-", f"{box}:/", stdin=buffer.getvalue())
    assert sh(remapping, box, "stat -c %u:%g /sent") == ["3:4"]
    got = remapping.run_docker("cp", f"{box}:/made", "-").stdout
    with tarfile.open(fileobj=io.BytesIO(got)) as archive:
        assert [(entry.name, entry.uid, entry.gid) for entry in archive] == [("made", 5, 6)]
    assert {"A /made", "A /sent"} <= set(remapping.docker("diff", box).splitlines())
    remapping.docker("commit", box, "committed")
    assert remapping.docker("run", "--rm", "committed", "stat", "-c", "%u:%g", "/made") == "5:6"


def test_networks_and_shared_namespaces(remapping, box):
    script = "for name in user net; do readlink /proc/self/ns/$name; done; ip addr show eth0 | grep -c inet"
    words = remapping.docker("run", "--rm", "--network", f"container:{box}", "busybox", "sh", "-c", script)
    assert words.split() == sh(remapping, box, script)
    remapping.docker("run", "--rm", "--ipc", f"container:{box}", "busybox", "touch", "/dev/shm/shared")
    assert sh(remapping, box, "stat -c %u /dev/shm/shared") == ["0"]
    groups = sh(remapping, box, "cat /proc/sys/net/ipv4/ping_group_range")
    assert groups == ["0", str(COUNT - 1)]


@pytest.mark.parametrize(
    ("option", "word"),
    [
        ("--privileged", "privileged mode is incompatible with user namespaces"),
        ("--network=host", "cannot share the host's network namespace when user namespaces are enabled"),
        ("--pid=host", "cannot share the host PID namespace when user namespaces are enabled"),
    ],
)
def test_the_hosts_namespaces_need_the_hosts_users(remapping, option, word):
    assert word in remapping.docker("run", "--rm", option, "busybox", "true", status=125, both=True)
    assert remapping.docker("run", "--rm", "--userns=host", option, "busybox", "id", "-u") == "0"


def test_it_survives_and_leaves_nothing(remapping):
    """Logs through /dev/stdout, restarts, many starts: no mount, no folder of layers stays."""
    assert remapping.docker("run", "--rm", "--user", "9", "busybox", "sh", "-c", "echo out > /dev/stdout") == "out"
    remapping.docker("run", "-d", "--name", "again", "busybox", "sh", "-c", "echo ran; exit 3")
    until(lambda: remapping.inspect("again")["State"]["Status"] == "exited", what="the end")
    remapping.docker("start", "-a", "again", status=3)
    assert remapping.docker("logs", "again").split() == ["ran", "ran"]
    remapping.docker("rm", "again")
    assert not list(remapping.run.rglob("*-layers"))
    assert json.loads(remapping.docker("ps", "-a", "--format", "json") or "[]") == []


def test_devices_and_a_runtime_that_cannot(remapping):
    options = ("--device", "/dev/zero:/dev/nil", "--tmpfs", "/t", "--read-only")
    assert remapping.docker("run", "--rm", *options, "busybox", "sh", "-c", "head -c 3 /dev/nil | wc -c; touch /t/x") == "3"
    refused = remapping.docker("run", "--rm", "--runtime", "runc", "busybox", "true", status=125, both=True)
    assert "runtime runc maps no ids of mounts" in refused
