"""Images: `GET /images/{name}/json`, the rows of `GET /images/json`, history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wharfie.api import versions
from wharfie.api.versions import Version
from wharfie.api.views import duration

if TYPE_CHECKING:
    from wharfie.engine.images.remote import Distribution
    from wharfie.engine.model.image import HistoryItem, Image
    from wharfie.spi.registry import SearchResult

_NO_NAME = "<none>:<none>"
_NO_DIGEST = "<none>@<none>"
_IMAGE_CONFIG = frozenset(
    {
        "User",
        "ExposedPorts",
        "Env",
        "Cmd",
        "Healthcheck",
        "ArgsEscaped",
        "Volumes",
        "WorkingDir",
        "Entrypoint",
        "OnBuild",
        "Labels",
        "StopSignal",
        "Shell",
    }
)


def image_view(image: Image, version: Version, storage_driver: str) -> dict[str, Any]:
    """Definition ImageInspect."""
    view: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Parent": image.parent,
        "Comment": image.comment,
        "Created": image.created,
        "DockerVersion": image.docker_version,
        "Author": image.author,
        "Config": _config(image, version),
        "Architecture": image.architecture,
        "Os": image.os,
        "Size": image.size,
        "GraphDriver": {"Data": None, "Name": storage_driver},
        "RootFS": {"Type": "layers", "Layers": image.layers},
        "Metadata": {"LastTagTime": image.last_tagged},
    }
    if image.variant:
        view["Variant"] = image.variant
    if version < versions.NO_VIRTUAL_SIZE:
        view["VirtualSize"] = image.size
    return view


def _config(image: Image, version: Version) -> dict[str, Any]:
    """Definition ImageConfig; older versions had fields in it that only containers use."""
    found = image.config.dump() | {"Labels": image.config.labels or None}
    return {key: value for key, value in found.items() if version < versions.IMAGE_CONFIG or key in _IMAGE_CONFIG}


def summary_view(image: Image, version: Version, *, containers: int = -1, shared_size: int = -1) -> dict[str, Any]:
    """Definition ImageSummary. What was not asked for is -1."""
    tags, digests = list(image.repo_tags), list(image.repo_digests)
    if version < versions.NO_NONE_TAGS and not tags:
        tags, digests = [_NO_NAME], digests or [_NO_DIGEST]
    view = {
        "Containers": containers,
        "Created": int(duration.parse(image.created)),
        "Id": image.id,
        "Labels": image.config.labels or None,
        "ParentId": image.parent,
        "RepoDigests": digests,
        "RepoTags": tags,
        "SharedSize": shared_size,
        "Size": image.size,
    }
    if version < versions.NO_VIRTUAL_SIZE:
        view["VirtualSize"] = image.size
    return view


def history_view(item: HistoryItem) -> dict[str, Any]:
    """Definition HistoryResponseItem."""
    return {
        "Comment": item.comment,
        "Created": item.created,
        "CreatedBy": item.created_by,
        "Id": item.id,
        "Size": item.size,
        "Tags": item.tags or None,
    }


def distribution_view(found: Distribution) -> dict[str, Any]:
    """Definition DistributionInspect."""
    descriptor = found.descriptor
    platforms = [
        {"architecture": one.architecture, "os": one.os} | ({"variant": one.variant} if one.variant else {})
        for one in found.platforms
    ]
    return {
        "Descriptor": {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size},
        "Platforms": platforms,
    }


def search_view(row: SearchResult) -> dict[str, Any]:
    """One entry of `GET /images/search`."""
    return {
        "star_count": row.stars,
        "is_official": row.official,
        "name": row.name,
        "is_automated": row.automated,
        "description": row.description,
    }
