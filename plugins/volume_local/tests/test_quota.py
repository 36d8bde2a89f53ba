"""Volumes with a size, on a file system that keeps project quotas: the contract, and what belongs to quotas alone."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from wharfie_volume_local import quota
from wharfie_volume_local.driver import LocalDriver

from wharfie.kit import VolumeContract
from wharfie.spi.errors import InvalidArgument
from wharfie.spi.volume import VolumeCapability

MEGABYTE = 1 << 20


class TestLimited(VolumeContract):
    driver = "volume.local"
    other_options = {"type": "tmpfs", "device": "tmpfs"}
    sized_options = {"size": "4m"}

    @pytest.fixture(autouse=True)
    def folders_with_quotas(self, quotas: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(quotas))


@pytest.fixture
def driver(make_driver: Callable[[Path], LocalDriver], quotas: Path) -> LocalDriver:
    return make_driver(Path(tempfile.mkdtemp(dir=quotas)))


def fill(folder: Path, size: int) -> None:
    """Write as a container would: who has CAP_SYS_RESOURCE is above quotas (capabilities(7))."""
    with open(folder / "file", "wb", buffering=0) as file:
        os.seteuid(65534)
        try:
            file.writelines(b"x" * MEGABYTE for _ in range(size // MEGABYTE))
        finally:
            os.seteuid(0)


def test_the_limit_holds_and_is_each_volumes_own(driver: LocalDriver) -> None:
    assert VolumeCapability.SIZE_LIMIT in driver.capabilities()
    first, second = (driver.create(name, {"size": "2m"}, {}).mountpoint for name in ("first", "second"))
    free = driver.create("free", {}, {}).mountpoint
    with pytest.raises(OSError) as caught:
        fill(first, 3 * MEGABYTE)
    assert caught.value.errno in (errno.EDQUOT, errno.ENOSPC)
    fill(second, MEGABYTE)
    fill(free, 8 * MEGABYTE)
    assert len({quota.project_of(folder) for folder in (first, second, free)}) == 3


def test_a_number_that_is_free_again_limits_nobody(driver: LocalDriver) -> None:
    project = quota.project_of(driver.create("v", {"size": "1m"}, {}).mountpoint)
    driver.remove("v")
    again = driver.create("v", {"size": "8m"}, {}).mountpoint
    assert quota.project_of(again) == project
    fill(again, 4 * MEGABYTE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "much"}, 'invalid option: "size": invalid size'),
        ({"size": "-1m"}, 'invalid option: "size": invalid size'),
        ({"size": "1m", "type": "tmpfs", "device": "tmpfs"}, "quota size requested for a file system that is mounted"),
    ],
)
def test_bad_sizes(driver: LocalDriver, options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        driver.create("v", options, {})
    assert driver.volumes() == []
