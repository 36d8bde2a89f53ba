"""The contract of volume drivers."""

from __future__ import annotations

from wharfie.kit import VolumeContract


class TestLoop(VolumeContract):
    driver = "volume.loop"
    options = {"size": "8m"}
    other_options = {"size": "16m"}
    sized_options = {"size": "8m"}
