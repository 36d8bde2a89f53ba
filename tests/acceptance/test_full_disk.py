"""A data root on a disk that is full: each command says so, nothing is left of it, and the engine goes on."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.harness import busybox_tar, import_busybox, until

SAYS_SO = "no space left on device"
KIBIBYTE = 1024


class SmallDisk:
    """An ext4 file system in a file, mounted."""

    def __init__(self, folder):
        self.folder = folder / "small"
        self.folder.mkdir(parents=True)
        image = folder / "image"
        with image.open("wb") as file:
            file.truncate(64 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, self.folder], check=True)

    def free(self):
        facts = os.statvfs(self.folder)
        return facts.f_bavail * facts.f_frsize

    def fill(self, *, leave=0):
        """Take all but `leave` bytes; all of it by single blocks at the end."""
        with open(self.folder / "filler", "ab", buffering=0) as file:
            while self.free() > leave + KIBIBYTE:
                file.write(bytes(max(min(self.free() - leave, 1 << 20), KIBIBYTE)))
                os.fsync(file.fileno())
            try:
                while not leave:
                    file.write(bytes(512))
            except OSError:
                os.fsync(file.fileno())

    def clear(self):
        (self.folder / "filler").unlink()


@pytest.fixture
def small(make_daemon, tmp_path):
    """A daemon, its disk, and a container `up` with the volume `up`."""
    daemon = make_daemon(start=False)
    disk = SmallDisk(daemon.root)
    daemon.data = disk.folder / "data"
    daemon.start()
    import_busybox(daemon)
    daemon.docker(
        "run", "-d", "--name", "up", "-v", "up:/v", "busybox", "sh", "-c", "while :; do echo line; sleep 0.1; done"
    )
    yield daemon, disk
    daemon.run_docker("rm", "-f", "up")


def _names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_disk_that_fills_up_in_the_middle(small, tmp_path):
    daemon, disk = small
    big = tmp_path / "big"
    big.write_bytes(os.urandom(6 << 20))
    daemon.docker("cp", big, "up:/home/big")
    daemon.docker("commit", "up", "with:big")
    layers = _names(daemon.data / "content")
    disk.fill(leave=3 << 20)

    words = ("run", "--name", "new", "-v", "new:/home", "with:big", "true")
    text = daemon.docker(*words, status=125, both=True)
    assert f"copying what the image has at /home into a volume: {SAYS_SO}" in text
    assert daemon.inspect("new")["State"]["Status"] == "created"
    assert list((daemon.data / "volume" / "local" / "new" / "_data").iterdir()) == []

    for target in ("up:/tmp/big", "up:/v/big"):
        assert SAYS_SO in daemon.docker("cp", big, target, status=1, both=True)
    daemon.docker("exec", "up", "rm", "-f", "/tmp/big", "/v/big")
    assert SAYS_SO in daemon.docker("commit", "up", "again:big", status=1, both=True)
    assert "again" not in daemon.docker("images")
    archive = busybox_tar() * 3
    assert SAYS_SO in daemon.docker("import", "-", "more:big", stdin=archive + bytes(1 << 20), status=1, both=True)
    assert _names(daemon.data / "content") == layers

    disk.clear()
    # What failed is done now, with all of it.
    assert daemon.docker("start", "-a", "new") == ""
    assert daemon.docker("run", "--rm", "-v", "new:/v", "busybox", "stat", "-c", "%s", "/v/big") == str(6 << 20)
    daemon.docker("rm", "new")


def test_a_disk_without_a_byte(small):
    daemon, disk = small
    daemon.docker("run", "-d", "--name", "ends", "busybox", "sleep", "600")
    before = [_names(daemon.data / place) for place in ("storage", "volume", "containers")]
    disk.fill()
    for command in (
        ("create", "--name", "unmade", "busybox", "true"),
        ("volume", "create", "unmade"),
        ("network", "create", "unmade"),
        ("tag", "busybox", "unmade"),
        ("rename", "up", "unmade"),
    ):
        assert SAYS_SO in daemon.docker(*command, status=1, both=True), command
    assert "unmade" not in daemon.docker("ps", "-a") + daemon.docker("volume", "ls")
    assert [_names(daemon.data / place) for place in ("storage", "volume", "containers")] == before

    # What runs goes on, and what ends has ended, even if that cannot be written down.
    assert daemon.docker("exec", "up", "echo", "alive") == "alive"
    assert daemon.docker("logs", "--tail", "1", "up") == "line"
    assert daemon.docker("stop", "-t", "0", "ends") == "ends"
    assert daemon.docker("wait", "ends") == "137"
    assert daemon.inspect("ends")["State"]["Status"] == "exited"

    daemon.kill()
    disk.clear()
    daemon.start()
    assert daemon.inspect("up")["State"]["Status"] == "running"
    until(lambda: daemon.inspect("ends")["State"]["Status"] == "exited")
    daemon.docker("rm", "ends")
    assert daemon.docker("run", "--rm", "busybox", "echo", "on it goes") == "on it goes"
