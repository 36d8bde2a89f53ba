"""What is behind an image's name: the manifests of its index, which of them are here, and how large they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wharfie.engine.images import documents
from wharfie.engine.images.assemble import Assembler
from wharfie.engine.images.catalog import platform_of
from wharfie.engine.images.documents import ManifestEntry
from wharfie.engine.images.platforms import Platform
from wharfie.engine.model.container import Container
from wharfie.engine.model.image import Image
from wharfie.spi.registry import MANIFEST_LIMIT, Descriptor

_TYPE, _ABOUT = "vnd.docker.reference.type", "vnd.docker.reference.digest"
"""Annotations by which buildx marks an attestation, and says of what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One manifest. `image`: what it is here, None when it is not here; `content`: bytes of its blobs; `about`: of an
    attestation, the manifest that it is about."""

    descriptor: Descriptor
    platform: Platform | None
    image: Image | None = None
    content: int = 0
    containers: tuple[str, ...] = ()
    about: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """What a name leads to: an index or a manifest."""

    descriptor: Descriptor
    variants: tuple[Variant, ...]


class Variants:
    """Looks into the catalog and the content store; changes nothing."""

    def __init__(self, assembler: Assembler, containers_using: Callable[[str], Sequence[Container]]) -> None:
        self._assembler = assembler
        self._catalog = assembler.catalog
        self._content = assembler.content
        self._containers_using = containers_using

    def is_main(self, image: Image) -> bool:
        """Not one that is meant only where its platform is asked for."""
        names = self._catalog.names_of(image.id)
        return not names or any(self._catalog.names[name] == image.id for name in names)

    async def of(self, image: Image) -> Target:
        """Behind the image's first name that came by an index, else the image alone."""
        for name in self._catalog.names_of(image.id):
            meaning = self._catalog.meaning(name)
            if meaning is None or meaning.index is None:
                continue
            if await self._assembler.run(self._content.size, meaning.index.digest) is None:
                continue
            here = {(found := self._catalog.images[key]).manifest: found for key in meaning.images}
            data = await self._assembler.run(self._content.read, meaning.index.digest, MANIFEST_LIMIT)
            entries = documents.read_index(documents.read_object(data, "the manifest list"))
            return Target(
                meaning.index, tuple([await self._variant(entry, here.get(entry.descriptor.digest)) for entry in entries])
            )
        own = Descriptor(media_type=image.manifest_type, digest=image.manifest, size=image.manifest_size)
        return Target(own, (await self._variant(ManifestEntry(own, platform_of(image), {}), image),))

    async def _variant(self, entry: ManifestEntry, image: Image | None) -> Variant:
        about = entry.annotations.get(_ABOUT, "") if entry.annotations.get(_TYPE) == "attestation-manifest" else ""
        if image is None:
            return Variant(descriptor=entry.descriptor, platform=entry.platform, about=about)
        config = await self._assembler.run(self._content.size, image.id)
        return Variant(
            descriptor=entry.descriptor,
            platform=entry.platform or platform_of(image),
            image=image,
            content=(config or 0) + image.manifest_size + sum(layer.blob_size for layer in image.stack),
            containers=tuple(container.id for container in self._containers_using(image.id)),
            about=about,
        )
