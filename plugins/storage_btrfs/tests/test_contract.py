"""The conformance kit on this driver, with the kit's folders on btrfs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from wharfie.kit import StorageContract


@pytest.fixture(autouse=True)
def folders_on_btrfs(btrfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(btrfs))


class TestBtrfs(StorageContract):
    driver = "storage.btrfs"
