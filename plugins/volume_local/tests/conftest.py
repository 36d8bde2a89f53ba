"""A file system with project quotas, in a file of the tests' own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def quotas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on ext4 with project quotas, mounted for one module's tests."""
    base = tmp_path_factory.mktemp("quotas")
    image, folder = base / "image", base / "mounted"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(128 << 20)
    features = ("-O", "quota,project", "-E", "quotatype=prjquota")
    subprocess.run(["mkfs.ext4", "-q", *features, image], check=True, capture_output=True)
    mounted = subprocess.run(["mount", "-o", "loop,prjquota", image, folder], check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"the kernel enforces no project quotas (CONFIG_QFMT_V2): {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
