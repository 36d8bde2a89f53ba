"""Images: `GET /images/{name}/json`, the rows of `GET /images/json`, history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wharfie.api import versions
from wharfie.api.versions import Version
from wharfie.api.views import duration
from wharfie.engine.model.config import Config

if TYPE_CHECKING:
    from wharfie.engine.images.platforms import Platform
    from wharfie.engine.images.remote import Distribution
    from wharfie.engine.images.variants import Target, Variant
    from wharfie.engine.model.image import HistoryItem, Image
    from wharfie.spi.registry import Descriptor, SearchResult

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
    if version < versions.NO_CONTAINER_OF_IMAGE:
        view |= {"Container": "", "ContainerConfig": Config().dump()}
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


def target_view(target: Target) -> dict[str, Any]:
    """The fields Descriptor and Manifests of both views; definitions OCIDescriptor and ImageManifestSummary."""
    return {"Descriptor": _descriptor(target.descriptor), "Manifests": [_variant(each) for each in target.variants]}


def _variant(variant: Variant) -> dict[str, Any]:
    image = variant.image
    unpacked = image.size if image is not None else 0
    platform = _platform(variant.platform) if variant.platform is not None else None
    view: dict[str, Any] = {
        "ID": variant.descriptor.digest,
        "Descriptor": _descriptor(variant.descriptor) | ({"platform": platform} if platform else {}),
        "Available": image is not None,
        "Size": {"Content": variant.content, "Total": variant.content + unpacked},
        "Kind": "attestation" if variant.about else "image",
    }
    if variant.about:
        view["AttestationData"] = {"For": variant.about}
    else:
        view["ImageData"] = {
            "Platform": platform,
            "Containers": list(variant.containers),
            "Size": {"Unpacked": unpacked},
        }
    return view


def _descriptor(descriptor: Descriptor) -> dict[str, Any]:
    return {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
        **({"annotations": dict(descriptor.annotations)} if descriptor.annotations else {}),
    }


def _platform(one: Platform) -> dict[str, str]:
    return {"architecture": one.architecture, "os": one.os} | ({"variant": one.variant} if one.variant else {})


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
    return {
        "Descriptor": _descriptor(found.descriptor),
        "Platforms": [_platform(one) for one in found.platforms],
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
