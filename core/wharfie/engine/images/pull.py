"""An image from a registry. Nothing of it is visible before all of it is here, verified and unpacked."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from wharfie.engine.images import documents
from wharfie.engine.images.assemble import Assembler
from wharfie.engine.images.catalog import Meaning
from wharfie.engine.images.documents import ImageConfig, ImageManifest
from wharfie.engine.images.download import Downloader, Source, Step, retry_delay
from wharfie.engine.images.flights import first_error
from wharfie.engine.images.platforms import Platform
from wharfie.engine.images.progress import LayerLine, Progress
from wharfie.engine.images.reference import Name, short
from wharfie.engine.images.remote import SourceRepository
from wharfie.engine.images.unpack import Wanted
from wharfie.engine.model.image import Image, ImageLayer
from wharfie.spi.errors import InvalidArgument, Unavailable
from wharfie.spi.registry import MANIFEST_LIMIT, Descriptor, Manifest, Reference, RegistryDriver
from wharfie.store.arrival import Interrupted

_RESOLVE_ATTEMPTS = 3


class Puller:
    """Pulls one reference at a time; any number of them in parallel."""

    def __init__(self, assembler: Assembler, downloader: Downloader) -> None:
        self._assembler = assembler
        self._catalog = assembler.catalog
        self._content = assembler.content
        self._downloader = downloader

    async def pull(self, source: Source, name: Name, platform: Platform, progress: Progress) -> Image:
        """Have the image that `name` (with tag or digest) means on its server, and give it that name.

        Errors: NotFound (no such image, no such platform), Unauthorized, InvalidArgument (what came is not what it should
        be), Unavailable, OutOfSpace.
        """
        before = self._catalog.names.get(name.stored)
        top = await self._resolve(source, source.reference)
        document = documents.read_object(top.data, "the manifest")
        manifest = top
        if documents.is_index(document, top.media_type):
            entry = documents.choose(documents.read_index(document), platform)
            manifest = await self._member(source, entry.descriptor)
            document = documents.read_object(manifest.data, "the manifest")
            if documents.is_index(document, manifest.media_type):
                raise InvalidArgument("the manifest list leads to another manifest list")
        parts = documents.read_manifest(document)
        led = manifest is not top
        await self._assembler.admit(name.canonical, manifest.data, top.digest if led else "", SourceRepository(source))
        progress({"status": f"Pulling from {name.path}", "id": name.digest or name.tag})
        image = await self._image(source, manifest, parts, _names(name, top.digest), top if led else None, progress)
        progress({"status": f"Digest: {top.digest}"})
        news = "Image is up to date" if before == image.id else "Downloaded newer image"
        progress({"status": f"Status: {news} for {name.familiar}"})
        return image

    async def _resolve(self, source: Source, reference: Reference) -> Manifest:
        """A manifest, verified. Tried again only when the server says when."""
        for attempt in range(1, _RESOLVE_ATTEMPTS + 1):
            try:
                manifest = await source.driver.call(RegistryDriver.resolve, reference, source.credentials)
                break
            except Unavailable as error:
                if attempt == _RESOLVE_ATTEMPTS or error.retry_after is None:
                    raise
                await asyncio.sleep(retry_delay(attempt, error))
        found = documents.digest_of(manifest.data)
        if len(manifest.data) > MANIFEST_LIMIT:
            raise InvalidArgument(f"the manifest has {len(manifest.data)} bytes; the limit is {MANIFEST_LIMIT}")
        if found != (reference.digest or manifest.digest):
            raise InvalidArgument(f"manifest verification failed for digest {reference.digest or manifest.digest}")
        return manifest

    async def _member(self, source: Source, descriptor: Descriptor) -> Manifest:
        manifest = await self._resolve(source, replace(source.reference, tag="", digest=descriptor.digest))
        if len(manifest.data) != descriptor.size:
            raise InvalidArgument(
                f"manifest {descriptor.digest} has {len(manifest.data)} bytes, but the manifest list says {descriptor.size}"
            )
        return manifest

    async def _image(
        self,
        source: Source,
        manifest: Manifest,
        parts: ImageManifest,
        names: Sequence[Name],
        led_by: Manifest | None,
        progress: Progress,
    ) -> Image:
        key = parts.config.digest
        index = documents.describe_index(led_by.data) if led_by is not None else None
        if key in self._catalog.images and await self._assembler.is_whole(self._catalog.images[key]):
            async with self._catalog.lock:
                if (image := self._catalog.images.get(key)) is not None:
                    await self._keep(led_by)  # also where it was lost
                    if any(not _means(self._catalog.meaning(name), key, index) for name in names):
                        await self._catalog.add(image, names, index)
                        await self._assembler.write_index()
                    return image
        blobs = [key, *(layer.digest for layer in parts.layers), *([index.digest] if index is not None else [])]
        async with self._assembler.making_room(blobs), self._assembler.building([], blobs, keep=True):
            await self._downloader.fetch(source, parts.config, lambda step: None)
            data = await self._assembler.run(self._content.read, key, documents.CONFIG_LIMIT)
            config = documents.read_config(data)
            if len(config.diff_ids) != len(parts.layers):
                raise InvalidArgument("layers from manifest don't match image configuration")
            chains = documents.chain_ids(config.diff_ids)
            async with self._assembler.building(chains, []):
                layers = await self._layers(source, parts.layers, config, chains, progress)
                await self._keep(led_by)
                as_sent = all(layer.blob == sent.digest for layer, sent in zip(layers, parts.layers, strict=True))
                return await self._assembler.record(
                    key,
                    config,
                    layers,
                    manifest=manifest.data if as_sent else None,
                    manifest_type=_manifest_type(manifest),
                    config_type=parts.config.media_type,
                    names=names,
                    index=index,
                    admitted=True,
                )

    async def _keep(self, index: Manifest | None) -> None:
        """The index goes with the image's names: a push of all its images sends it as it came."""
        if index is not None:
            await self._assembler.run(self._content.put, index.data)

    async def _layers(
        self,
        source: Source,
        sent: Sequence[Descriptor],
        config: ImageConfig,
        chains: Sequence[str],
        progress: Progress,
    ) -> list[ImageLayer]:
        """All layers, unpacked: fetched side by side, and unpacked side by side while they arrive."""
        lines = [LayerLine(progress, short(blob.digest)) for blob in sent]
        known = [await self._assembler.layer_at_hand(chain) for chain in chains]
        for line, layer in zip(lines, known, strict=True):
            line.status("Pulling fs layer" if layer is None else "Already exists")
        return await self._assembler.stack(
            [
                layer
                or functools.partial(
                    self._layer,
                    source,
                    blob,
                    Wanted(blob.digest, config.diff_ids[at], chains[at], chains[at - 1] if at else None),
                    line,
                )
                for at, (layer, blob, line) in enumerate(zip(known, sent, lines, strict=True))
            ]
        )

    async def _layer(
        self, source: Source, blob: Descriptor, wanted: Wanted, line: LayerLine, below: Callable[[], Awaitable[None]]
    ) -> ImageLayer:
        here = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                download = group.create_task(self._download(source, blob, line, here))
                await here.wait()
                await below()
                size = await self._unpack(wanted, blob, line, download)
                await download
        except BaseExceptionGroup as group_error:
            raise first_error(group_error) from None
        line.status("Pull complete")
        return ImageLayer(
            diff_id=wanted.diff_id,
            chain_id=wanted.chain_id,
            size=size,
            blob=blob.digest,
            blob_size=blob.size,
            media_type=blob.media_type,
        )

    async def _download(self, source: Source, blob: Descriptor, line: LayerLine, here: asyncio.Event) -> None:
        """Sets `here` when something of the blob can be read."""

        def watch(step: Step) -> None:
            if step.phase != "waiting":
                here.set()
            match step.phase:
                case "waiting":
                    line.status("Waiting")
                case "downloading":
                    line.moved("Downloading", step.current, blob.size)
                case "retrying":
                    line.status(f"Retrying in {step.current} second{'s' if step.current != 1 else ''}")
                case "verifying":
                    line.status("Verifying Checksum")
                case "complete":
                    line.status("Download complete")
                    line.moved("Extracting", 0, blob.size)

        await self._downloader.fetch(source, blob, watch)

    async def _unpack(self, wanted: Wanted, blob: Descriptor, line: LayerLine, download: asyncio.Task[None]) -> int:
        """Bytes of the layer. What is unpacked while it arrives is shown as it arrives."""

        def moved(current: int) -> None:
            if download.done():
                line.moved("Extracting", current, blob.size)

        arriving = not download.done()
        try:
            return await self._assembler.unpack(wanted, moved)
        except (Interrupted, InvalidArgument) as error:
            # What was left of an earlier pull may have been wrong, which only the digest of all of it tells.
            if not arriving and isinstance(error, InvalidArgument):
                raise
            await download
            return await self._assembler.unpack(wanted, moved)


def _names(name: Name, digest: str) -> list[Name]:
    """What a pulled image is called: its tag, if it was asked for by tag, and its digest on the server."""
    by_digest = name.with_digest(digest)
    return [by_digest] if name.digest else [name.stored, by_digest]


def _means(meaning: Meaning | None, image: str, index: Descriptor | None) -> bool:
    return meaning is not None and (meaning.image, meaning.index) == (image, index)


def _manifest_type(manifest: Manifest) -> str:
    said = documents.read_object(manifest.data, "the manifest").get("mediaType")
    return said if isinstance(said, str) else manifest.media_type
