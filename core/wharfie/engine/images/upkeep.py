"""The content store looked at: what is in it, whether it is still what was written, and damage mended from registries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from wharfie.engine.images import documents
from wharfie.engine.images.assemble import Assembler
from wharfie.engine.images.download import Downloader, Source
from wharfie.engine.images.progress import Progress
from wharfie.engine.images.reference import Name, short
from wharfie.engine.model.image import Image
from wharfie.spi.errors import WharfieError
from wharfie.spi.registry import MANIFEST_LIMIT, Credentials, Descriptor, RegistryDriver

FindSource = Callable[[Name, Credentials | None], Awaitable[Source]]
"""The registry of a name."""


@dataclass(frozen=True, slots=True)
class Blob:
    """One blob. `kind`: config, layer, manifest, index, download (of a pull that did not end well). `size`: as it should
    be."""

    digest: str
    kind: str
    size: int | None
    images: tuple[Image, ...] = ()


@dataclass(slots=True)
class Findings:
    """What a look at the store found."""

    blobs: int = 0
    bytes: int = 0
    damaged: list[tuple[Blob, str]] = field(default_factory=list)
    repaired: set[str] = field(default_factory=set)


class Upkeep:
    """Looks and mends. Images may be pulled and removed meanwhile."""

    def __init__(self, assembler: Assembler, downloader: Downloader, source_of: FindSource) -> None:
        self._assembler = assembler
        self._catalog = assembler.catalog
        self._content = assembler.content
        self._downloader = downloader
        self._source_of = source_of

    async def list(self) -> Sequence[Blob]:
        """All blobs by digest, then what is left of downloads."""
        wanted = {blob.digest: blob for blob in self._wanted()}
        found = []
        for digest in sorted(await self._assembler.run(self._content.digests) | wanted.keys()):
            size = await self._assembler.run(self._content.size, digest)
            known = wanted.get(digest, Blob(digest, "unused", size))
            found.append(Blob(digest, known.kind, size, known.images))
        leftovers = await self._assembler.run(self._content.leftovers)
        return [*found, *(Blob(digest, "download", size) for digest, size in sorted(leftovers.items()))]

    async def verify(self, progress: Progress) -> Findings:
        """Read every blob of an image. Says each damaged one by `progress`."""
        findings = Findings()
        for blob in self._wanted():
            if (why := await self._assembler.run(self._content.fault, blob.digest, blob.size)) and self._is_wanted(blob):
                findings.damaged.append((blob, why))
                progress({"status": f"damaged: {blob.kind} of {_names(blob)}: {why}", "id": short(blob.digest)})
            findings.blobs += 1
            findings.bytes += blob.size or 0
        return findings

    async def repair(self, auth: Credentials | None, progress: Progress) -> Findings:
        """Verify, and fetch what is damaged from where its image came from. What cannot be fetched is taken away, so that
        a pull or a load of the image brings it back."""
        findings = await self.verify(progress)
        for blob, _ in sorted(findings.damaged, key=lambda pair: pair[0].kind != "manifest"):  # it says the others' sizes
            with self._catalog.pin([blob.digest]):
                await self._assembler.run(self._content.remove, blob.digest)
                if await self._fetch(blob, auth, progress):
                    findings.repaired.add(blob.digest)
                    progress({"status": "repaired", "id": short(blob.digest)})
                else:
                    advice = f"not repaired: pull or load {_names(blob)} again"
                    progress({"status": advice, "id": short(blob.digest)})
        return findings

    async def _fetch(self, blob: Blob, auth: Credentials | None, progress: Progress) -> bool:
        for image in blob.images:
            for name in (name for name in self._catalog.names_of(image.id) if name.digest):
                try:
                    source = await self._source_of(name, auth)
                    await self._fetch_from(source, blob)
                except WharfieError as error:
                    progress({"status": f"{name.familiar_repository}: {error.message}", "id": short(blob.digest)})
                else:
                    return True
        return False

    async def _fetch_from(self, source: Source, blob: Blob) -> None:
        if blob.kind in ("manifest", "index"):
            reference = replace(source.reference, tag="", digest=blob.digest)
            manifest = await source.driver.call(RegistryDriver.resolve, reference, source.credentials)
            if documents.digest_of(manifest.data) != blob.digest:
                raise WharfieError(f"manifest verification failed for digest {blob.digest}")
            await self._assembler.run(self._content.put, manifest.data)
            return
        size = blob.size if blob.size is not None else await self._config_size(blob)
        descriptor = Descriptor(media_type="application/octet-stream", digest=blob.digest, size=size)
        await self._downloader.fetch(source, descriptor, lambda step: None)

    async def _config_size(self, blob: Blob) -> int:
        data = await self._assembler.run(self._content.read, blob.images[0].manifest, MANIFEST_LIMIT)
        return documents.read_manifest(documents.read_object(data, "the manifest")).config.size

    def _wanted(self) -> Sequence[Blob]:
        """Every blob that an image is made of."""
        found: dict[str, tuple[str, int | None, list[Image]]] = {}
        for image in self._catalog.images.values():
            for digest, kind, size in _parts(image):
                entry = found.setdefault(digest, (kind, size, []))
                if image not in entry[2]:
                    entry[2].append(image)
        for index, images in self._catalog.indexes():
            found.setdefault(index.digest, ("index", index.size, images))
        return [Blob(digest, kind, size, tuple(images)) for digest, (kind, size, images) in sorted(found.items())]

    def _is_wanted(self, blob: Blob) -> bool:
        """An image may have been removed while its blobs were read."""
        return any(image.id in self._catalog.images for image in blob.images)


def _parts(image: Image) -> Iterator[tuple[str, str, int | None]]:
    yield image.id, "config", None
    yield image.manifest, "manifest", image.manifest_size
    for layer in image.stack:
        yield layer.blob, "layer", layer.blob_size


def _names(blob: Blob) -> str:
    return ", ".join(name for image in blob.images for name in (image.repo_tags or [short(image.id)]))
