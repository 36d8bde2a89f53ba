"""A btrfs of the tests' own, in a file."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def btrfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on btrfs, mounted for one module's tests."""
    if "\tbtrfs\n" not in Path("/proc/filesystems").read_text():
        pytest.skip("the kernel has no btrfs (/proc/filesystems)")
    root = tmp_path_factory.mktemp("btrfs")
    image, folder = root / "disk.img", root / "mounted"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(512 << 20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
