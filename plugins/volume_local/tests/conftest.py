"""Drivers of the tests' own, and a file system with project quotas in a file."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from wharfie_volume_local.driver import LocalDriver

from wharfie.spi.driver import Context, HostFacts
from wharfie.spi.mount_points import unmount


@pytest.fixture
def make_driver() -> Iterator[Callable[[Path], LocalDriver]]:
    """Opens drivers on folders of the test's own; what their volumes have mounted goes with the test."""
    made: list[LocalDriver] = []
    facts = HostFacts(kernel=(6, 1), architecture="amd64", cgroup="v1", cpus=2, memory=1 << 30)

    def make(root: Path) -> LocalDriver:
        root.mkdir(mode=0o700, exist_ok=True)
        log = logging.getLogger("volume")
        context = Context(state=root, run=root, instance="0" * 8, log=log, host=facts, emit=lambda event: None)
        driver = LocalDriver(context, None)
        driver.open()
        made.append(driver)
        return driver

    yield make
    for driver in made:
        driver.close()
        for volume in driver.volumes():
            unmount(volume.mountpoint)


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
