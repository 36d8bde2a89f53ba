"""Where a file system puts folders: told by their inodes' numbers, which ext4 gives out by block groups."""

from __future__ import annotations

import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from wharfie.spi.placement import spread_out


@pytest.fixture
def groups(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A file system of eight block groups, and the inodes of each."""
    image, folder = tmp_path / "disk", tmp_path / "mounted"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-b", "1024", "-g", "8192", "-O", "^flex_bg", image], check=True)
    facts = subprocess.run(["dumpe2fs", "-h", image], check=True, capture_output=True, text=True).stdout
    found = re.search(r"Inodes per group:\s+(\d+)", facts)
    assert found is not None
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    try:
        yield folder, int(found[1])
    finally:
        subprocess.run(["umount", folder], check=True)


def places(folder: Path, inodes: int) -> set[int]:
    """The block groups of folders that are made in `folder`."""
    made = [folder / secrets.token_hex(8) for _ in range(16)]
    for path in made:
        path.mkdir()
    return {(path.stat().st_ino - 1) // inodes for path in made}


def test_folders_are_made_far_from_each_other(groups: tuple[Path, int]) -> None:
    mounted, inodes = groups
    close, spread = mounted / "close", mounted / "spread"
    for folder in (close, spread):
        folder.mkdir()
    for _ in range(2):
        spread_out(spread)
    assert len(places(close, inodes)) <= 2
    assert len(places(spread, inodes)) >= 4


def test_a_file_system_without_such_a_thing_is_left_as_it_is() -> None:
    spread_out(Path("/proc/self"))
