"""Disk usage: `GET /system/df`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from wharfie.api.versions import Version
from wharfie.api.views.image import summary_view as image_summary
from wharfie.api.views.summary import summary_view as container_summary
from wharfie.api.views.volume import volume_view

if TYPE_CHECKING:
    from wharfie.engine.engine import Engine
    from wharfie.engine.system import DiskUsage


def usage_view(engine: Engine, usage: DiskUsage, wanted: Collection[str], version: Version) -> dict[str, Any]:
    """Definition SystemDataUsageResponse. What was not asked for is null."""
    users = Counter(container.image_id for container in engine.containers.matching(all=True, limit=0, filters={}))
    shared = engine.images.shared_sizes(usage.images)
    images = [
        image_summary(image, version, containers=users[image.id], shared_size=shared[image.id]) | {"RepoDigests": None}
        for image in usage.images
    ]
    containers = [container_summary(engine, container, version, sizes) for container, sizes in usage.containers]
    volumes = [
        volume_view(volume) | {"UsageData": {"RefCount": engine.volumes.references(volume.name), "Size": size}}
        for volume, size in usage.volumes
    ]
    return {
        "LayersSize": usage.layers_size,
        "Images": images if "image" in wanted else None,
        "Containers": containers if "container" in wanted else None,
        "Volumes": volumes if "volume" in wanted else None,
        "BuildCache": [] if "build-cache" in wanted else None,
    }
