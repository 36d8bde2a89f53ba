"""Volumes."""

from __future__ import annotations

from typing import Any

from wharfie.engine.model.container import VolumeRecord


def volume_view(volume: VolumeRecord) -> dict[str, Any]:
    """Definition Volume."""
    view: dict[str, Any] = {
        "CreatedAt": volume.created,
        "Driver": volume.driver,
        "Labels": volume.labels,
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": volume.options or None,
        "Scope": "local",
    }
    if volume.status:
        view["Status"] = volume.status
    return view
