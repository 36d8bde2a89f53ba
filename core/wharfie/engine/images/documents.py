"""Manifests, indexes and image configurations (OCI image-spec; Docker image manifest version 2, schema 2).

They come from servers and archives that may lie, so each is read with the types, digests and sizes checked, and a document
that could be taken for two things is refused (CVE-2021-41190).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from wharfie.engine.identity import parse_rfc3339
from wharfie.engine.images import reference
from wharfie.engine.images.platforms import Platform
from wharfie.engine.model.base import NO_TIME
from wharfie.engine.model.config import Config
from wharfie.engine.model.image import ImageHistory
from wharfie.spi.errors import InvalidArgument, NotFound
from wharfie.spi.registry import MANIFEST_LIMIT, Descriptor

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

CONFIG_LIMIT = MANIFEST_LIMIT
LAYER_LIMIT = 127
"""Layers of one image: what the kernel's overlay takes, with one to write to."""

_INDEXES = frozenset({OCI_INDEX, DOCKER_INDEX})
_MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
_CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG, "application/octet-stream", ""})
_LAYER_PREFIXES = (
    "application/vnd.oci.image.layer.",
    "application/vnd.docker.image.rootfs.",
    "application/vnd.docker.container.image.rootfs.",
    "application/octet-stream",
)


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One line of an index."""

    descriptor: Descriptor
    platform: Platform | None
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """What an image is made of: its configuration and its layers as they are stored, the lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """An image's configuration document."""

    platform: Platform
    created: str
    author: str
    comment: str
    docker_version: str
    config: Config
    diff_ids: tuple[str, ...]
    history: tuple[ImageHistory, ...]


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """Names of the layers (OCI image-spec, config.md "Layer ChainID")."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(digest_of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain


def dump(document: Any) -> bytes:
    """JSON as it is stored: compact, keys in the order given."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def read_json(data: bytes, what: str) -> Any:
    """Errors: InvalidArgument."""
    try:
        document = json.loads(data)
        if b"\\ud" in data.lower():  # half of a surrogate pair is no text: it could be written nowhere
            document = json.loads(json.dumps(document, ensure_ascii=False).encode(errors="replace"))
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{what} is not valid JSON: {error}") from None
    return document


def read_object(data: bytes, what: str) -> dict[str, Any]:
    """Errors: InvalidArgument."""
    document = read_json(data, what)
    if not isinstance(document, dict):
        raise InvalidArgument(f"{what} is not a JSON object")
    return document


def is_index(document: Mapping[str, Any], media_type: str) -> bool:
    """Whether this is an index rather than a manifest. Errors: InvalidArgument (could be both, or is neither)."""
    said = document.get("mediaType") or media_type
    if not isinstance(said, str):
        raise InvalidArgument(f"unsupported manifest media type {said!r}: want a text")
    if media_type in _INDEXES | _MANIFESTS and said in _INDEXES | _MANIFESTS and said != media_type:
        raise InvalidArgument(f"ambiguous manifest: sent as {media_type}, but its mediaType says {said}")
    listed, single = "manifests" in document, "layers" in document or "config" in document
    if (listed and single) or ("fsLayers" in document and (listed or single)):
        raise InvalidArgument("ambiguous manifest: it has both manifests and layers (CVE-2021-41190)")
    if said in _INDEXES or (said not in _MANIFESTS and listed):
        if single:
            raise InvalidArgument("ambiguous manifest: an index with layers")
        return True
    if listed:
        raise InvalidArgument("ambiguous manifest: an image manifest with manifests")
    if said not in _MANIFESTS and not single:
        raise InvalidArgument(f"unsupported manifest media type {said!r}: want a Docker version 2 schema 2 or OCI manifest")
    return False


def read_index(document: Mapping[str, Any]) -> list[ManifestEntry]:
    """Errors: InvalidArgument."""
    entries = document.get("manifests")
    if not isinstance(entries, list):
        raise InvalidArgument("the manifest list has no manifests")
    return [_entry(entry) for entry in entries]


def _entry(entry: Any) -> ManifestEntry:
    descriptor = read_descriptor(entry, "a manifest of the manifest list")
    platform = entry.get("platform")
    annotations = entry.get("annotations")
    return ManifestEntry(
        descriptor,
        Platform.of(platform) if isinstance(platform, dict) else None,
        {str(key): str(value) for key, value in annotations.items()} if isinstance(annotations, dict) else {},
    )


def choose(entries: Sequence[ManifestEntry], platform: Platform) -> ManifestEntry:
    """The entry for `platform`, or for the nearest that runs there. Errors: NotFound."""
    for candidate in platform.accepts():
        for entry in entries:
            if entry.platform == candidate:
                return entry
    raise NotFound(
        f"no matching manifest for {platform} in the manifest list entries: no match for platform in manifest: not found"
    )


def choose_any(entries: Sequence[ManifestEntry], platform: Platform) -> ManifestEntry:
    """The entry for `platform` or for the nearest that runs there, else the first."""
    try:
        return choose(entries, platform)
    except NotFound:
        return entries[0]


def is_index_type(media_type: str) -> bool:
    return media_type in _INDEXES


def is_image(entry: ManifestEntry) -> bool:
    """Not an attestation, which builders list for the platform unknown/unknown."""
    return entry.platform is None or entry.platform.os != "unknown"


def describe_index(data: bytes) -> Descriptor:
    """Of an index as it was sent. Errors: InvalidArgument."""
    said = read_object(data, "the manifest list").get("mediaType")
    media_type = said if isinstance(said, str) and said in _INDEXES else OCI_INDEX
    return Descriptor(media_type=media_type, digest=digest_of(data), size=len(data))


def read_manifest(document: Mapping[str, Any]) -> ImageManifest:
    """Errors: InvalidArgument."""
    config = read_descriptor(document.get("config"), "the image's configuration")
    if config.media_type not in _CONFIGS:
        raise InvalidArgument(f"not an image: its configuration is of type {config.media_type!r}")
    if config.size > CONFIG_LIMIT:
        raise InvalidArgument(f"the image's configuration has {config.size} bytes; the limit is {CONFIG_LIMIT}")
    listed = document.get("layers")
    if not isinstance(listed, list):
        raise InvalidArgument("the image manifest has no layers")
    if len(listed) > LAYER_LIMIT:
        raise InvalidArgument(f"max depth exceeded: the image has {len(listed)} layers; the limit is {LAYER_LIMIT}")
    layers = tuple(read_descriptor(layer, "a layer of the image") for layer in listed)
    for layer in layers:
        if not layer.media_type.startswith(_LAYER_PREFIXES):
            raise InvalidArgument(f"not an image: a layer is of type {layer.media_type!r}")
    return ImageManifest(config, layers)


def read_descriptor(document: Any, what: str) -> Descriptor:
    """Errors: InvalidArgument."""
    if not isinstance(document, dict):
        raise InvalidArgument(f"{what} has no descriptor")
    media_type, digest, size = (document.get(key) for key in ("mediaType", "digest", "size"))
    if not reference.is_digest(digest):
        raise InvalidArgument(f"{what} has the digest {digest!r}; want sha256: and 64 hexadecimal digits")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise InvalidArgument(f"{what} has the size {size!r}")
    urls = document.get("urls") or ()
    if not isinstance(urls, list | tuple) or not all(isinstance(url, str) for url in urls):
        raise InvalidArgument(f"{what} has urls that are no list of texts")
    artifact_type, annotations = document.get("artifactType"), document.get("annotations")
    return Descriptor(
        media_type=media_type if isinstance(media_type, str) else "",
        digest=str(digest),
        size=size,
        urls=tuple(urls),
        artifact_type=artifact_type if isinstance(artifact_type, str) else "",
        annotations={str(key): str(value) for key, value in annotations.items()} if isinstance(annotations, dict) else {},
    )


def read_config(data: bytes) -> ImageConfig:
    """Errors: InvalidArgument."""
    document = read_object(data, "the image's configuration")
    if "manifests" in document or "layers" in document:
        raise InvalidArgument("the image's configuration is a manifest")
    rootfs = document.get("rootfs")
    if not isinstance(rootfs, dict) or rootfs.get("type") != "layers":
        raise InvalidArgument("invalid rootfs in image configuration")
    diff_ids = rootfs.get("diff_ids") or []
    if not isinstance(diff_ids, list) or not all(reference.is_digest(diff_id) for diff_id in diff_ids):
        raise InvalidArgument("invalid rootfs in image configuration: a diff id is not a sha256 digest")
    if len(diff_ids) > LAYER_LIMIT:
        raise InvalidArgument(f"max depth exceeded: the image has {len(diff_ids)} layers; the limit is {LAYER_LIMIT}")
    texts = {key: document.get(key) for key in ("created", "author", "comment", "docker_version")}
    if not all(value is None or isinstance(value, str) for value in texts.values()):
        raise InvalidArgument("invalid image configuration: created, author and comment are texts")
    created = texts["created"] or NO_TIME
    try:
        parse_rfc3339(created)  # lists of all images are sorted by it
    except ValueError:
        raise InvalidArgument(f"invalid image configuration: created {created!r} is no time of RFC 3339") from None
    try:
        config = Config.model_validate(document.get("config") or {})
        history = tuple(_history(entry) for entry in document.get("history") or ())
    except (ValidationError, TypeError) as error:
        raise InvalidArgument(f"invalid image configuration: {error}") from None
    return ImageConfig(
        platform=Platform.of(document),
        created=created,
        author=texts["author"] or "",
        comment=texts["comment"] or "",
        docker_version=texts["docker_version"] or "",
        config=config,
        diff_ids=tuple(diff_ids),
        history=history,
    )


def _history(entry: Any) -> ImageHistory:
    if not isinstance(entry, dict):
        raise InvalidArgument("invalid image configuration: an entry of its history is not an object")
    fields = ("created", "created_by", "author", "comment", "empty_layer")
    return ImageHistory.model_validate({key: entry[key] for key in fields if entry.get(key) is not None})


def write_manifest(config: Descriptor, layers: Sequence[Descriptor]) -> bytes:
    """An OCI manifest of our own, for an image that came without one, or whose layers we have in another form."""
    return dump(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": write_descriptor(config),
            "layers": [write_descriptor(layer) for layer in layers],
        }
    )


def write_descriptor(descriptor: Descriptor) -> dict[str, Any]:
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}
