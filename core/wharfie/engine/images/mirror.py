"""What other engines may pull from this one: images that are whole, by the names that they have here.

An index is given as it came, also when only some of its images are here: who wants another one gets NotFound for its
manifest, and goes on to the next mirror or to the registry itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from wharfie.engine.images import documents, reference
from wharfie.engine.images.assemble import Assembler
from wharfie.engine.images.reference import Name
from wharfie.engine.model.image import Image
from wharfie.spi.errors import NotFound
from wharfie.spi.registry import MANIFEST_LIMIT, Descriptor, Manifest


@dataclass(frozen=True, slots=True)
class Served:
    """A blob that may be given out: its file, and its bytes."""

    path: str
    size: int


class Mirror:
    """Looks into the catalog and the content store; changes nothing. `repository`: as a registry's clients name it, without
    `docker.io` for Docker Hub's, with the registry in front for all others."""

    def __init__(self, assembler: Assembler) -> None:
        self._assembler = assembler
        self._catalog = assembler.catalog
        self._content = assembler.content

    async def repositories(self) -> list[str]:
        """Those with a tag on a whole image, sorted."""
        found: set[str] = set()
        for name, image in self._named():
            if name.tag and _shown(name) not in found and await self._assembler.is_whole(image):
                found.add(_shown(name))
        return sorted(found)

    async def tags(self, repository: str) -> list[str]:
        """Sorted. Errors: NotFound (no such repository)."""
        own = [(name, image) for name, image in self._of(repository) if name.tag]
        return sorted({name.tag for name, image in own if await self._assembler.is_whole(image)})

    async def manifest(self, repository: str, tag_or_digest: str, accepted: Collection[str]) -> Manifest:
        """A manifest or index; the image's own for who does not accept an index (empty: everything is accepted).

        Errors: NotFound (no such repository, tag or digest, or the image is not whole).
        """
        own = self._of(repository)
        for name, image in own:
            meaning = self._catalog.meaning(name)
            index = meaning.index if meaning is not None else None
            if index is not None and index.digest == tag_or_digest:
                return await self._index(own, index)
            if name.tag == tag_or_digest and ":" not in tag_or_digest:
                if index is not None and (not accepted or index.media_type in accepted):
                    return await self._index(own, index)
                return await self._manifest_of(image)
        for _, image in own:
            if image.manifest == tag_or_digest:
                return await self._manifest_of(image)
        raise NotFound(f"manifest unknown: {repository} has no {tag_or_digest} here")

    async def blob(self, repository: str, digest: str) -> Served:
        """A blob of a whole image of this repository. Errors: NotFound."""
        for _, image in self._of(repository):
            if digest in (image.id, *(layer.blob for layer in image.stack)) and await self._assembler.is_whole(image):
                size = await self._assembler.run(self._content.size, digest)
                if size is not None:
                    return Served(str(self._content.path(digest)), size)
        raise NotFound(f"blob unknown: {repository} has no {digest} here")

    async def referrers(self, repository: str, digest: str) -> list[Descriptor]:
        """Images of the repository whose manifest has this subject. Errors: NotFound (no such repository)."""
        found: dict[str, Descriptor] = {}
        for _, image in self._of(repository):
            manifest = await self._manifest_of(image) if await self._assembler.is_whole(image) else None
            document = documents.read_object(manifest.data, "the manifest") if manifest is not None else {}
            subject = document.get("subject")
            if manifest is not None and isinstance(subject, dict) and subject.get("digest") == digest:
                kind = document.get("artifactType") or documents.read_manifest(document).config.media_type
                found[manifest.digest] = Descriptor(
                    media_type=manifest.media_type,
                    digest=manifest.digest,
                    size=len(manifest.data),
                    artifact_type=str(kind),
                    annotations=document.get("annotations") or {},
                )
        return list(found.values())

    async def _index(self, own: Sequence[tuple[Name, Image]], index: Descriptor) -> Manifest:
        """While one of its images is whole: nobody is led to where there is nothing."""
        for name, image in own:
            meaning = self._catalog.meaning(name)
            if meaning is not None and meaning.index == index and await self._assembler.is_whole(image):
                return await self._read(index)
        raise NotFound(f"manifest unknown: no image of {index.digest} is whole here")

    async def _manifest_of(self, image: Image) -> Manifest:
        if not await self._assembler.is_whole(image):
            raise NotFound(f"manifest unknown: image {image.id} is not whole here")
        return await self._read(Descriptor(media_type=image.manifest_type, digest=image.manifest, size=image.manifest_size))

    async def _read(self, descriptor: Descriptor) -> Manifest:
        if await self._assembler.run(self._content.size, descriptor.digest) is None:
            raise NotFound(f"manifest unknown: {descriptor.digest} is not here")
        data = await self._assembler.run(self._content.read, descriptor.digest, MANIFEST_LIMIT)
        return Manifest(media_type=descriptor.media_type, digest=descriptor.digest, data=data)

    def _named(self) -> list[tuple[Name, Image]]:
        """Every name with every image that it means."""
        return [
            (name, self._catalog.images[key])
            for name in self._catalog.names
            if (meaning := self._catalog.meaning(name)) is not None
            for key in meaning.images
        ]

    def _of(self, repository: str) -> list[tuple[Name, Image]]:
        first = repository.partition("/")[0]
        whole = repository if any(mark in first for mark in ".:") or first == "localhost" else f"docker.io/{repository}"
        found = [(name, image) for name, image in self._named() if name.repository == whole]
        if not found:
            raise NotFound(f"repository name not known to this mirror: {repository}")
        return found


def _shown(name: Name) -> str:
    return name.path if name.domain == reference.DEFAULT_DOMAIN else name.repository
