"""The records: which images there are, what they are called, what they are made of.

State is kept in memory and written through: a change is in the metadata before it is visible. A name that loses its last
image is removed; an image that loses its last name stays ("dangling") until someone removes it.

A name may mean several images, which one *index* lists for different platforms. One of them is meant where nobody asks for
a platform: the one that came last.

An image of which something is missing is *damaged*: it is left out until it is pulled or loaded again, and keeps what it
has.

An image that was removed by force while containers stand on its layers is *withdrawn*: nobody sees it any more, and its
layers stay until the last of those containers is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from wharfie.engine.identity import rfc3339
from wharfie.engine.images import documents, reference
from wharfie.engine.images.platforms import Platform
from wharfie.engine.images.reference import Name
from wharfie.engine.model.image import Image, ImageLayer
from wharfie.spi.errors import NotFound
from wharfie.spi.registry import Descriptor
from wharfie.store.metadata import Change, Delete, Metadata, Put

IMAGES = "images"
REFERENCES = "references"
COMPRESSED = "compressed"


class _Record(BaseModel):
    """How an image is stored."""

    image: Image
    withdrawn: bool = False


class _Blob(BaseModel):
    """How a descriptor is stored."""

    media_type: str
    digest: str
    size: int


class _Named(BaseModel):
    """How a name is stored."""

    image: str
    others: list[str] = []
    index: _Blob | None = None


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a name means. `others`: images for other platforms with the same name; `index`: what they all came by."""

    image: str
    others: tuple[str, ...] = ()
    index: Descriptor | None = None

    @property
    def images(self) -> tuple[str, ...]:
        return (self.image, *self.others)

    def without(self, id: str) -> Meaning | None:
        """What the name means when this image is gone; None: nothing."""
        left = [each for each in self.images if each != id]
        return replace(self, image=left[0], others=tuple(left[1:])) if left else None


@dataclass(frozen=True, slots=True)
class Garbage:
    """What no image needs any more. `chains`: layers, the topmost first."""

    chains: tuple[str, ...]
    blobs: tuple[str, ...]


class Catalog:
    """The images. Used in the event loop's thread; `lock` orders whoever changes several things at once."""

    def __init__(self, metadata: Metadata) -> None:
        self.lock = asyncio.Lock()
        self._metadata = metadata
        self._images: dict[str, Image] = {}
        self._withdrawn: dict[str, Image] = {}
        self._damaged: dict[str, Image] = {}
        self._names: dict[Name, str] = {}
        self._pinned: Counter[str] = Counter()
        self._compressed: dict[str, Descriptor] = {}
        self._meanings: dict[Name, Meaning] = {}  # of names that came by an index
        self._stale: set[str] = set()

    def load(self) -> None:
        """Read the records. Errors: ValueError of pydantic when they are not ours."""
        for key, document in self._metadata.all(IMAGES).items():
            record = _Record.model_validate_json(document)
            (self._withdrawn if record.withdrawn else self._images)[key] = record.image
        for text, document in self._metadata.all(REFERENCES).items():
            named = _Named.model_validate_json(document)
            held = [each for each in (named.image, *named.others) if each in self._images]
            if held:
                index = Descriptor(**named.index.model_dump()) if named.index else None
                self._set(reference.parse(text), Meaning(held[0], tuple(held[1:]), index))
        for key in self._images:
            self._rename(key)
        for blob, document in self._metadata.all(COMPRESSED).items():
            self._compressed[blob] = Descriptor(**_Blob.model_validate_json(document).model_dump())

    # Reading

    @property
    def images(self) -> Mapping[str, Image]:
        return self._images

    @property
    def withdrawn(self) -> Mapping[str, Image]:
        return self._withdrawn

    @property
    def names(self) -> Mapping[Name, str]:
        return self._names

    @property
    def compressed(self) -> Mapping[str, Descriptor]:
        """What an uncompressed layer is called where it was pushed to, by its digest here."""
        return self._compressed

    def names_of(self, id: str) -> list[Name]:
        """Sorted; those that it shares with images for other platforms too."""
        own = {name for name, target in self._names.items() if target == id}
        return sorted(own | {name for name, meaning in self._meanings.items() if id in meaning.others})

    def meaning(self, name: Name) -> Meaning | None:
        """All images that a name means."""
        target = self._names.get(name)
        return self._meanings.get(name, Meaning(target)) if target is not None else None

    def children(self, id: str) -> list[Image]:
        return [image for image in self._images.values() if image.parent == id]

    def find(self, text: str, platform: Platform | None = None, *, exact: bool = False) -> Image:
        """By name, id or unique prefix of an id; of several the one that runs on `platform`, with `exact` for no other.

        Errors: NotFound (also: none for this platform), InvalidArgument (not a name at all).
        """
        found = self._find(text)
        if platform is None:
            return found
        by_name = None if reference.image_id(text) is not None else self.meaning(reference.parse(text).stored)
        images = [self._images[key] for key in (by_name.images if by_name is not None else (found.id,))]
        for candidate in (platform,) if exact else platform.accepts():
            for image in images:
                if platform_of(image) == candidate:
                    return image
        raise NotFound(
            f"image with reference {text} was found but its platform ({platform_of(found)}) does not match the specified "
            f"platform ({platform})"
        )

    def _find(self, text: str) -> Image:
        if (whole := reference.image_id(text)) is not None:
            if whole in self._images:
                return self._images[whole]
            raise NotFound(f"No such image: {whole}")
        name = reference.parse(text)
        if (target := self._names.get(name.stored)) is not None:
            return self._images[target]
        prefix = text.removeprefix("sha256:")
        matches = [key for key in self._images if key.startswith(f"sha256:{prefix}")] if prefix else []
        if len(matches) == 1:
            return self._images[matches[0]]
        raise NotFound(f"No such image: {name.with_default_tag().familiar}")

    def layer(self, chain_id: str) -> ImageLayer | None:
        """A layer that is unpacked, with its blob."""
        for image in self._images.values():
            for layer in image.stack:
                if layer.chain_id == chain_id:
                    return layer
        return None

    def wanted_layers(self) -> frozenset[str]:
        """Every layer that an image, a withdrawn one or a pull under way needs."""
        images = (*self._images.values(), *self._withdrawn.values(), *self._damaged.values())
        return frozenset(chain for image in images for chain in image.chain_ids) | self._pinned.keys()

    def wanted_blobs(self) -> frozenset[str]:
        """Every blob that an image or a pull under way needs."""
        images = (*self._images.values(), *self._damaged.values())
        indexes = {meaning.index.digest for meaning in self._meanings.values() if meaning.index is not None}
        return frozenset(blob for image in images for blob in blobs_of(image)) | self._pinned.keys() | indexes

    def indexes(self) -> list[tuple[Descriptor, list[Image]]]:
        """Every index that names came by, with the images that are here."""
        found: dict[Descriptor, dict[str, Image]] = {}
        for meaning in self._meanings.values():
            if meaning.index is not None:
                found.setdefault(meaning.index, {}).update((key, self._images[key]) for key in meaning.images)
        return [(index, list(images.values())) for index, images in found.items()]

    def take_stale(self) -> list[str]:
        """Indexes that no name came by any more, since the last call."""
        stale = sorted(self._stale - self.wanted_blobs())
        self._stale.clear()
        return stale

    # Changing

    @contextlib.contextmanager
    def pin(self, things: Iterable[str]) -> Iterator[None]:
        """Keep chains and blobs from being garbage while an image is put together."""
        held = tuple(things)
        self._pinned.update(held)
        try:
            yield
        finally:
            self._pinned.subtract(held)
            self._pinned = +self._pinned

    def garbage(self, candidates: Iterable[Image]) -> Garbage:
        """Of what these images are made of, all that nothing needs any more. Call it when their records are gone."""
        chains, blobs = self.wanted_layers(), self.wanted_blobs()
        lost_chains: dict[str, None] = {}
        lost_blobs: dict[str, None] = {}
        for image in candidates:
            lost_chains.update(dict.fromkeys(chain for chain in reversed(image.chain_ids) if chain not in chains))
            if image.id not in self._images:
                lost_blobs.update(dict.fromkeys(blob for blob in blobs_of(image) if blob not in blobs))
        return Garbage(tuple(lost_chains), tuple(lost_blobs))

    async def add(
        self, image: Image, names: Sequence[Name] = (), index: Descriptor | None = None, others: Sequence[str] = ()
    ) -> None:
        """Record an image, new or known, and give it these names, taking them from whatever had them. Images that came by
        the same `index`, and `others`, share them."""
        tagged = rfc3339() if names else image.last_tagged
        image = image.model_copy(update={"last_tagged": tagged})
        meanings: dict[Name, Meaning] = {}
        losers: set[str] = set()
        for name in names:
            before = self.meaning(name)
            had = before.images if before is not None else ()
            kept = had if before is not None and index is not None and before.index == index else ()
            shared = dict.fromkeys(key for key in (*kept, *others) if key != image.id and key in self._images)
            meanings[name] = Meaning(image.id, tuple(shared), index)
            losers.update(had, shared)
        await self._metadata.commit([_put(image), *(_name(name, meaning) for name, meaning in meanings.items())])
        self._withdrawn.pop(image.id, None)
        self._damaged.pop(image.id, None)
        self._images[image.id] = image
        for name, meaning in meanings.items():
            self._set(name, meaning)
        for key in {image.id, *losers}:
            self._rename(key)

    async def untag(self, names: Sequence[Name]) -> None:
        """Remove names."""
        await self._metadata.commit([Delete(REFERENCES, name.canonical) for name in names])
        meanings = [meaning for name in names if (meaning := self.meaning(name)) is not None]
        for name in names:
            self._set(name, None)
        for key in {each for meaning in meanings for each in meaning.images}:
            self._rename(key)

    async def release(self, image: Image, names: Sequence[Name]) -> None:
        """Take names from an image that shares them with others, which keep them."""
        left = {name: meaning.without(image.id) for name in names if (meaning := self.meaning(name)) is not None}
        await self._metadata.commit([_name(name, meaning) for name, meaning in left.items()])
        for name, meaning in left.items():
            self._set(name, meaning)
        self._rename(image.id)

    async def remove(self, image: Image, *, withdraw: bool) -> None:
        """Remove an image and all its names, but for those that images for other platforms share. `withdraw`: its layers
        stay, see above."""
        left = {
            name: meaning.without(image.id)
            for name in self.names_of(image.id)
            if (meaning := self.meaning(name)) is not None
        }
        changes: list[Change] = [_name(name, meaning) for name, meaning in left.items()]
        changes.append(_put(image, withdrawn=True) if withdraw else Delete(IMAGES, image.id))
        await self._metadata.commit(changes)
        self._images.pop(image.id, None)
        if withdraw:
            self._withdrawn[image.id] = image
        else:
            self._withdrawn.pop(image.id, None)
        for name, meaning in left.items():
            self._set(name, meaning)

    async def remember_compressed(self, blob: str, compressed: Descriptor) -> None:
        """What the layer `blob` became on its way to a registry."""
        record = _Blob(media_type=compressed.media_type, digest=compressed.digest, size=compressed.size)
        await self._metadata.commit([Put(COMPRESSED, blob, record.model_dump_json())])
        self._compressed[blob] = compressed

    async def forget_compressed(self, blobs: Iterable[str]) -> None:
        """The layers are gone."""
        known = [blob for blob in blobs if self._compressed.pop(blob, None) is not None]
        if known:
            await self._metadata.commit([Delete(COMPRESSED, blob) for blob in known])

    def put_aside(self, id: str) -> None:
        """Leave a damaged image out. Its records stay, in case what is missing comes back before the next start."""
        self._damaged[id] = self._images.pop(id)
        for name in self.names_of(id):
            meaning = self.meaning(name)
            self._set(name, meaning.without(id) if meaning is not None else None)

    def _set(self, name: Name, meaning: Meaning | None) -> None:
        before = self._meanings.pop(name, None)
        if before is not None and before.index is not None:
            self._stale.add(before.index.digest)
        self._names.pop(name, None)
        if meaning is not None:
            self._names[name] = meaning.image
            if meaning.index is not None:
                self._meanings[name] = meaning

    def _rename(self, id: str) -> None:
        image = self._images.get(id)
        if image is not None:
            names = self.names_of(id)
            tags = [name.familiar for name in names if not name.digest]
            digests = [name.familiar for name in names if name.digest]
            self._images[id] = image.model_copy(update={"repo_tags": tags, "repo_digests": digests})


def _put(image: Image, *, withdrawn: bool = False) -> Put:
    return Put(IMAGES, image.id, _Record(image=image, withdrawn=withdrawn).model_dump_json())


def _name(name: Name, meaning: Meaning | None) -> Change:
    if meaning is None:
        return Delete(REFERENCES, name.canonical)
    index = _Blob(**_fields(meaning.index)) if meaning.index is not None else None
    record = _Named(image=meaning.image, others=list(meaning.others), index=index)
    return Put(REFERENCES, name.canonical, record.model_dump_json(exclude_defaults=True))


def _fields(descriptor: Descriptor) -> dict[str, Any]:
    return {"media_type": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}


def platform_of(image: Image) -> Platform:
    """What the image is for."""
    return Platform.of({"os": image.os, "architecture": image.architecture, "variant": image.variant})


def blobs_of(image: Image) -> list[str]:
    """Configuration, manifest and layers as they came."""
    return [image.id, image.manifest, *(layer.blob for layer in image.stack)]


def layout_index(catalog: Catalog) -> list[dict[str, Any]]:
    """The manifests of `index.json`, one for each name."""
    manifests: list[dict[str, Any]] = []
    for key, image in sorted(catalog.images.items()):
        base = {"mediaType": image.manifest_type, "digest": image.manifest, "size": image.manifest_size}
        tags = [name for name in catalog.names_of(key) if name.tag and not _several(catalog.meaning(name))]
        manifests += [{**base, "annotations": name_annotations(name)} for name in tags] or [base]
    for name in sorted(catalog.names):
        meaning = catalog.meaning(name)
        if name.tag and meaning is not None and meaning.index is not None and _several(meaning):
            manifests.append({**documents.write_descriptor(meaning.index), "annotations": name_annotations(name)})
    return manifests


def _several(meaning: Meaning | None) -> bool:
    return meaning is not None and meaning.index is not None and bool(meaning.others)


def name_annotations(name: Name) -> dict[str, str]:
    """How an OCI layout says a name (containerd's way, and the OCI's)."""
    return {"io.containerd.image.name": name.canonical, "org.opencontainers.image.ref.name": name.tag}
