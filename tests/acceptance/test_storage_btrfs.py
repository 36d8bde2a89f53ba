"""Containers on btrfs subvolumes, through the stock CLI."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.harness import busybox_tar, import_busybox


@pytest.fixture
def btrfs(tmp_path):
    """A folder on a btrfs of its own. Asked for before `make_daemon`, so that it is unmounted after the daemon's end."""
    if "\tbtrfs\n" not in Path("/proc/filesystems").read_text():
        pytest.skip("the kernel has no btrfs (/proc/filesystems)")
    image, folder = tmp_path / "disk.img", tmp_path / "btrfs"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(512 << 20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def subvolumes(folder: Path) -> int:
    listed = subprocess.run(["btrfs", "subvolume", "list", folder], check=True, capture_output=True, text=True).stdout
    return len(listed.splitlines())


def test_containers_on_btrfs(btrfs, make_daemon):
    daemon = make_daemon(start=False, flags=["--storage-driver", "btrfs"])
    daemon.data = btrfs / "data"
    daemon.start()
    import_busybox(daemon)
    assert daemon.docker("info", "--format", "{{.Driver}}") == "btrfs"
    assert daemon.docker("run", "--rm", "busybox", "echo", "on btrfs") == "on btrfs"
    assert subvolumes(btrfs) == 1  # the image's layer
    daemon.docker("run", "--name", "one", "busybox", "sh", "-c", "echo kept > /tmp/file; rm /etc/group")
    assert set(daemon.docker("diff", "one").splitlines()) == {"C /etc", "D /etc/group", "C /tmp", "A /tmp/file"}
    daemon.docker("commit", "--change", 'CMD ["cat", "/tmp/file"]', "one", "own:1")
    assert daemon.docker("run", "--rm", "own:1") == "kept"
    daemon.kill()
    daemon.start()
    assert subvolumes(btrfs) == 3
    daemon.docker("run", "-d", "--name", "two", "own:1", "sleep", "1000")
    assert daemon.docker("exec", "two", "sh", "-c", "test -e /etc/group || cat /tmp/file") == "kept"
    daemon.docker("rm", "-f", "one", "two")
    daemon.docker("rmi", "own:1", "busybox")
    assert subvolumes(btrfs) == 0


def test_elsewhere_it_says_what_to_do(make_daemon):
    daemon = make_daemon(start=False, flags=["--storage-driver", "btrfs"])
    daemon.data = Path("/dev/shm") / f"wharfie-{daemon.tag}"
    try:
        daemon.start()
        text = daemon.docker("import", "-", "busybox", stdin=busybox_tar(), status=1, both=True)
        assert "is not on btrfs" in text and "move data-root to btrfs" in text
    finally:
        daemon.close()
        subprocess.run(["rm", "-rf", daemon.data], check=True)
