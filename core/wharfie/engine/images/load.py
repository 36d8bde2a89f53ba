"""`docker load`: the images of an archive, as `docker save` of any age and OCI tools write it.

docker-archive   manifest.json: [{"Config": path, "RepoTags": [...], "Layers": [path, ...]}, ...]
OCI layout       index.json: descriptors of manifests under blobs/sha256
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wharfie.engine.images import documents, platforms, reference
from wharfie.engine.images.archive import Archive, take_apart
from wharfie.engine.images.assemble import Assembler
from wharfie.engine.images.decode import is_compressed, media_suffix
from wharfie.engine.images.platforms import Platform
from wharfie.engine.images.progress import LayerLine, Progress
from wharfie.engine.images.reference import Name, short
from wharfie.engine.images.unpack import Wanted
from wharfie.engine.model.image import Image, ImageLayer
from wharfie.spi.errors import InvalidArgument, NotFound
from wharfie.spi.registry import MANIFEST_LIMIT, Descriptor

_MANIFEST_LIMIT = 16 << 20
"""Bytes of manifest.json and of index.json, which list many images."""


@dataclass(frozen=True, slots=True)
class _Listed:
    """An image as the archive lists it. `manifest`: its OCI manifest, if there is one. `index`: of several for different
    platforms, what lists them; `main`: of these the one that is meant where nobody asks for a platform."""

    config: str
    layers: tuple[str, ...]
    names: tuple[Name, ...]
    manifest: bytes | None = None
    index: bytes | None = None
    main: bool = True


class Loader:
    """Loads archives; any number of them in parallel."""

    def __init__(self, assembler: Assembler) -> None:
        self._assembler = assembler
        self._catalog = assembler.catalog
        self._content = assembler.content

    async def load(self, body: AsyncIterator[bytes], *, platform: str, quiet: bool, progress: Progress) -> list[Image]:
        """Errors: InvalidArgument (not such an archive, damaged), NotFound (platform), OutOfSpace."""
        wanted = platforms.decode(platform)
        archive = await self._assembler.run(Archive, self._content)
        try:
            await take_apart(body, archive)
            listed = await self._assembler.run(_list, archive, wanted)
            return [await self._image(archive, each, wanted, quiet=quiet, progress=progress) for each in listed]
        finally:
            await asyncio.shield(self._assembler.run(archive.discard))

    async def _image(
        self, archive: Archive, listed: _Listed, wanted: Platform | None, *, quiet: bool, progress: Progress
    ) -> Image:
        data = await self._assembler.run(archive.read, listed.config, documents.CONFIG_LIMIT)
        key = documents.digest_of(data)
        if listed.config.startswith("blobs/sha256/") and f"sha256:{listed.config.rpartition('/')[2]}" != key:
            raise InvalidArgument(f"image config verification failed for {listed.config}")
        config = documents.read_config(data)
        if wanted is not None and config.platform not in wanted.accepts():
            raise NotFound(f"requested platform ({wanted}) not found: image {key} is for {config.platform}")
        if len(config.diff_ids) != len(listed.layers):
            counts = f"expected {len(config.diff_ids)}, got {len(listed.layers)}"
            raise InvalidArgument(f"invalid manifest, layers length mismatch: {counts}")
        image = self._catalog.images.get(key)
        if image is None or not await self._assembler.is_whole(image):
            image = await self._new(archive, listed, key, data, config, quiet=quiet, progress=progress)
        await self._name(image, listed, progress)
        for name in listed.names if listed.main else ():
            progress({"stream": f"Loaded image: {name.familiar}\n"})
        if not listed.names:
            progress({"stream": f"Loaded image ID: {key}\n"})
        return image

    async def _new(
        self,
        archive: Archive,
        listed: _Listed,
        key: str,
        data: bytes,
        config: documents.ImageConfig,
        *,
        quiet: bool,
        progress: Progress,
    ) -> Image:
        chains = documents.chain_ids(config.diff_ids)
        blobs = [
            await self._assembler.run(_blob_digest, archive, file, diff_id)
            for file, diff_id in zip(listed.layers, config.diff_ids, strict=True)
        ]
        async with self._assembler.building(chains, [key, *blobs]):
            await self._assembler.run(self._content.put, data)
            known = [await self._assembler.layer_at_hand(chain) for chain in chains]
            layers = await self._assembler.stack(
                [
                    layer
                    or functools.partial(
                        self._layer,
                        archive,
                        file,
                        Wanted(blob, diff_id, chains[at], chains[at - 1] if at else None),
                        LayerLine(progress if not quiet else lambda _: None, short(diff_id)),
                    )
                    for at, (layer, file, blob, diff_id) in enumerate(
                        zip(known, listed.layers, blobs, config.diff_ids, strict=True)
                    )
                ]
            )
            as_listed = listed.manifest is not None and _layers_of(listed.manifest) == [layer.blob for layer in layers]
            return await self._assembler.record(key, config, layers, manifest=listed.manifest if as_listed else None)

    async def _layer(
        self, archive: Archive, file: str, wanted: Wanted, line: LayerLine, below: Callable[[], Awaitable[None]]
    ) -> ImageLayer:
        size = archive.size(file)
        line.moved("Loading layer", 0, size)
        await self._assembler.run(archive.keep, file)
        await below()
        unpacked = await self._assembler.unpack(wanted, lambda current: line.moved("Loading layer", current, size))
        line.moved("Loading layer", size, size)
        return ImageLayer(
            diff_id=wanted.diff_id,
            chain_id=wanted.chain_id,
            size=unpacked,
            blob=wanted.blob,
            blob_size=size,
            media_type=documents.OCI_LAYER + media_suffix(archive.head(file)),
        )

    async def _name(self, image: Image, listed: _Listed, progress: Progress) -> None:
        if not listed.names:
            return
        index = documents.describe_index(listed.index) if listed.index is not None else None
        with self._catalog.pin([index.digest] if index is not None else []):
            if listed.index is not None:
                await self._assembler.run(self._content.put, listed.index)
            await self._rename(image, listed.names, index, progress)
        await self._assembler.write_index()

    async def _rename(self, image: Image, names: Sequence[Name], index: Descriptor | None, progress: Progress) -> None:
        async with self._catalog.lock:
            for name in names:
                before = self._catalog.names.get(name)
                meaning = self._catalog.meaning(name)
                if meaning is not None and meaning.index is not None and meaning.index == index:
                    continue
                if before is not None and before != image.id:
                    progress(
                        {
                            "stream": f"The image {name.familiar} already exists, "
                            f"renaming the old one with ID {before} to empty string\n"
                        }
                    )
            await self._catalog.add(self._catalog.find(image.id), names, index)


def _blob_digest(archive: Archive, file: str, diff_id: str) -> str:
    """A layer's digest. Errors: InvalidArgument when its name, or without a compression its diff id, says another one."""
    found = archive.digest(file)
    named = f"sha256:{file.rpartition('/')[2]}"
    if file.startswith("blobs/sha256/") and reference.is_digest(named):
        said = named
    else:
        said = found if is_compressed(archive.head(file)) else diff_id
    if found != said:
        raise InvalidArgument(f"filesystem layer verification failed for digest {said}")
    return found


def _layers_of(manifest: bytes) -> list[str]:
    parts = documents.read_manifest(documents.read_object(manifest, "the manifest"))
    return [layer.digest for layer in parts.layers]


def _list(archive: Archive, platform: Platform | None) -> list[_Listed]:
    layout = archive.find("index.json") is not None and archive.find("oci-layout") is not None
    if archive.find("manifest.json") is not None and not (layout and _has_indexes(archive)):
        return _list_docker(archive)
    if layout:
        return _list_oci(archive, platform)
    raise InvalidArgument(
        "invalid archive: open repositories: no such file or directory: it has neither a manifest.json, as docker save "
        "writes, nor the index.json of an OCI layout"
    )


def _list_docker(archive: Archive) -> list[_Listed]:
    entries = documents.read_json(archive.read("manifest.json", _MANIFEST_LIMIT), "manifest.json")
    if not isinstance(entries, list):
        raise InvalidArgument("manifest.json is not a list of images")
    manifests = _manifests_by_config(archive)
    return [_docker_entry(entry, manifests) for entry in entries]


def _docker_entry(entry: Any, manifests: Mapping[str, bytes]) -> _Listed:
    if not isinstance(entry, dict):
        raise InvalidArgument("manifest.json: an image is not an object")
    config, layers, tags = entry.get("Config"), entry.get("Layers") or [], entry.get("RepoTags") or []
    if not isinstance(config, str) or not _texts(layers) or not _texts(tags):
        raise InvalidArgument("manifest.json: Config is a path, Layers and RepoTags are lists of texts")
    names = [reference.parse(tag) for tag in tags]
    if any(not name.tag or name.digest for name in names):
        raise InvalidArgument(f"manifest.json: invalid tag in {tags}")
    return _Listed(config, tuple(layers), tuple(names), manifests.get(config))


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _manifests_by_config(archive: Archive) -> dict[str, bytes]:
    """The OCI manifests that an archive of both kinds has beside manifest.json, by the path of the configuration."""
    if archive.find("index.json") is None:
        return {}
    found: dict[str, bytes] = {}
    document = documents.read_object(archive.read("index.json", _MANIFEST_LIMIT), "index.json")
    for entry in documents.read_index(document):
        if archive.find(_blob(entry.descriptor.digest)) is not None:
            data = _read_blob(archive, entry.descriptor.digest)
            manifest = documents.read_object(data, "the manifest")
            if not documents.is_index(manifest, entry.descriptor.media_type):
                found[_blob(documents.read_manifest(manifest).config.digest)] = data
    return found


def _has_indexes(archive: Archive) -> bool:
    """Does the layout list images for several platforms? manifest.json, which may be there too, cannot say that."""
    document = documents.read_object(archive.read("index.json", _MANIFEST_LIMIT), "index.json")
    return any(
        documents.is_index_type(entry.descriptor.media_type) and archive.find(_blob(entry.descriptor.digest)) is not None
        for entry in documents.read_index(document)
    )


def _list_oci(archive: Archive, platform: Platform | None) -> list[_Listed]:
    document = documents.read_object(archive.read("index.json", _MANIFEST_LIMIT), "index.json")
    by_digest: dict[str, list[Name]] = {}
    types: dict[str, str] = {}
    for entry in documents.read_index(document):
        by_digest.setdefault(entry.descriptor.digest, []).extend(_oci_names(entry.annotations))
        types[entry.descriptor.digest] = entry.descriptor.media_type
    return [
        listed
        for digest, names in by_digest.items()
        for listed in _oci_entry(archive, digest, types[digest], tuple(names), platform)
    ]


def _oci_entry(
    archive: Archive, digest: str, media_type: str, names: tuple[Name, ...], platform: Platform | None
) -> list[_Listed]:
    """One image, or all images of an index that the archive has; of these the one that is meant comes last."""
    data = _read_blob(archive, digest)
    document = documents.read_object(data, "the manifest")
    if not documents.is_index(document, media_type):
        return [_oci_image(data, media_type, names)]
    entries = documents.read_index(document)
    there = [entry for entry in entries if documents.is_image(entry) and archive.find(_blob(entry.descriptor.digest))]
    if platform is not None or len(there) < 2:
        chosen = documents.choose(there or entries, platform or platforms.local()).descriptor
        return [_oci_image(_read_blob(archive, chosen.digest), chosen.media_type, names)]
    main = documents.choose_any(there, platforms.local())
    images = [
        replace(
            _oci_image(_read_blob(archive, entry.descriptor.digest), entry.descriptor.media_type, names),
            index=data,
            main=entry is main,
        )
        for entry in there
    ]
    return sorted(images, key=lambda image: image.main)


def _oci_image(data: bytes, media_type: str, names: tuple[Name, ...]) -> _Listed:
    document = documents.read_object(data, "the manifest")
    if documents.is_index(document, media_type):
        raise InvalidArgument("the manifest list leads to another manifest list")
    parts = documents.read_manifest(document)
    return _Listed(_blob(parts.config.digest), tuple(_blob(layer.digest) for layer in parts.layers), names, data)


def _oci_names(annotations: Mapping[str, str]) -> list[Name]:
    """containerd's annotation is a whole name; the OCI's may be one, or only a tag, which names nothing."""
    text = annotations.get("io.containerd.image.name") or annotations.get("org.opencontainers.image.ref.name", "")
    if not any(mark in text for mark in ":/"):
        return []
    name = reference.parse(text).with_default_tag()
    return [name] if not name.digest else []


def _blob(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _read_blob(archive: Archive, digest: str) -> bytes:
    data = archive.read(_blob(digest), MANIFEST_LIMIT)
    if documents.digest_of(data) != digest:
        raise InvalidArgument(f"manifest verification failed for digest {digest}")
    return data
