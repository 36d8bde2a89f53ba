"""The conformance kit on this driver."""

from __future__ import annotations

from wharfie.kit import VolumeContract


class TestLocal(VolumeContract):
    driver = "volume.local"
    other_options = {"type": "tmpfs", "device": "tmpfs"}
