"""The conformance kit on this driver."""

from __future__ import annotations

from wharfie.kit import StorageContract


class TestOverlay2(StorageContract):
    driver = "storage.overlay2"
