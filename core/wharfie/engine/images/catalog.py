"""The records: which images there are, what they are called, what they are made of.

State is kept in memory and written through: a change is in the metadata before it is visible. A name that loses its last
image is removed; an image that loses its last name stays ("dangling") until someone removes it.

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
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from wharfie.engine.identity import rfc3339
from wharfie.engine.images import reference
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


class _Named(BaseModel):
    """How a name is stored."""

    image: str


class _Compressed(BaseModel):
    """How it is stored what a layer became when it was pushed."""

    media_type: str
    digest: str
    size: int


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

    def load(self) -> None:
        """Read the records. Errors: ValueError of pydantic when they are not ours."""
        for key, document in self._metadata.all(IMAGES).items():
            record = _Record.model_validate_json(document)
            (self._withdrawn if record.withdrawn else self._images)[key] = record.image
        for text, document in self._metadata.all(REFERENCES).items():
            target = _Named.model_validate_json(document).image
            if target in self._images:
                self._names[reference.parse(text)] = target
        for key in self._images:
            self._rename(key)
        for blob, document in self._metadata.all(COMPRESSED).items():
            self._compressed[blob] = Descriptor(**_Compressed.model_validate_json(document).model_dump())

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
        """Sorted."""
        return sorted(name for name, target in self._names.items() if target == id)

    def children(self, id: str) -> list[Image]:
        return [image for image in self._images.values() if image.parent == id]

    def find(self, text: str) -> Image:
        """By name, id or unique prefix of an id. Errors: NotFound, InvalidArgument (not a name at all)."""
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
        return frozenset(blob for image in images for blob in blobs_of(image)) | self._pinned.keys()

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

    async def add(self, image: Image, names: Sequence[Name] = ()) -> None:
        """Record an image, new or known, and give it these names, taking them from whatever had them."""
        tagged = rfc3339() if names else image.last_tagged
        image = image.model_copy(update={"last_tagged": tagged})
        changes: list[Change] = [_put(image)]
        changes += [Put(REFERENCES, name.canonical, _Named(image=image.id).model_dump_json()) for name in names]
        await self._metadata.commit(changes)
        self._withdrawn.pop(image.id, None)
        self._damaged.pop(image.id, None)
        self._images[image.id] = image
        losers = {self._names.get(name) for name in names} - {None, image.id}
        for name in names:
            self._names[name] = image.id
        for key in (image.id, *losers):
            self._rename(str(key))

    async def untag(self, names: Sequence[Name]) -> None:
        """Remove names."""
        await self._metadata.commit([Delete(REFERENCES, name.canonical) for name in names])
        for key in {self._names.pop(name, "") for name in names}:
            self._rename(key)

    async def remove(self, image: Image, *, withdraw: bool) -> None:
        """Remove an image and all its names. `withdraw`: its layers stay, see above."""
        names = self.names_of(image.id)
        changes: list[Change] = [Delete(REFERENCES, name.canonical) for name in names]
        changes.append(_put(image, withdrawn=True) if withdraw else Delete(IMAGES, image.id))
        await self._metadata.commit(changes)
        self._images.pop(image.id, None)
        if withdraw:
            self._withdrawn[image.id] = image
        else:
            self._withdrawn.pop(image.id, None)
        for name in names:
            self._names.pop(name, None)

    async def remember_compressed(self, blob: str, compressed: Descriptor) -> None:
        """What the layer `blob` became on its way to a registry."""
        record = _Compressed(media_type=compressed.media_type, digest=compressed.digest, size=compressed.size)
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
            del self._names[name]

    def _rename(self, id: str) -> None:
        image = self._images.get(id)
        if image is not None:
            names = self.names_of(id)
            tags = [name.familiar for name in names if not name.digest]
            digests = [name.familiar for name in names if name.digest]
            self._images[id] = image.model_copy(update={"repo_tags": tags, "repo_digests": digests})


def _put(image: Image, *, withdrawn: bool = False) -> Put:
    return Put(IMAGES, image.id, _Record(image=image, withdrawn=withdrawn).model_dump_json())


def blobs_of(image: Image) -> list[str]:
    """Configuration, manifest and layers as they came."""
    return [image.id, image.manifest, *(layer.blob for layer in image.stack)]


def layout_index(catalog: Catalog) -> list[dict[str, Any]]:
    """The manifests of `index.json`, one for each name."""
    manifests: list[dict[str, Any]] = []
    for key, image in sorted(catalog.images.items()):
        base = {"mediaType": image.manifest_type, "digest": image.manifest, "size": image.manifest_size}
        tags = [name for name in catalog.names_of(key) if name.tag]
        manifests += [{**base, "annotations": name_annotations(name)} for name in tags] or [base]
    return manifests


def name_annotations(name: Name) -> dict[str, str]:
    """How an OCI layout says a name (containerd's way, and the OCI's)."""
    return {"io.containerd.image.name": name.canonical, "org.opencontainers.image.ref.name": name.tag}
