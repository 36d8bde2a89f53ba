"""An image to a registry: what it lacks of the layers, then the configuration, then the manifest that makes it visible.

An image that came from a registry goes out with the manifest that it came with, byte for byte. Layers that are stored as
they were built go out compressed, under a manifest of our own; what each became is remembered, so that the next push asks
for it by digest and compresses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from wharfie.engine.images import documents, pipes
from wharfie.engine.images.assemble import Assembler
from wharfie.engine.images.catalog import blobs_of
from wharfie.engine.images.compress import compress
from wharfie.engine.images.download import Source, count_down, retry_delay
from wharfie.engine.images.flights import Flights, first_error
from wharfie.engine.images.progress import INTERVAL, LayerLine, Progress
from wharfie.engine.images.reference import Name, short
from wharfie.engine.model.image import Image, ImageLayer
from wharfie.spi.errors import DeadlineExceeded, NotFound, Unavailable
from wharfie.spi.registry import MANIFEST_LIMIT, Descriptor, Manifest, RegistryDriver

_ATTEMPTS = 5
_COMPRESSED = ("+gzip", "+zstd", ".gzip", ".zstd")
_MISSING = (
    "missing content: content digest {}: not found\n"
    "Note: You're trying to push a manifest list/index which references multiple platform specific manifests, "
    "but not all of them are available locally or available to the remote repository.\n"
    "Make sure you have all the referenced content and try again."
)
_NOT_OURS = ("nondistributable", "foreign")


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push made of an image."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class _Step:
    """How far an upload is. `current`: bytes, or for "retrying" the seconds to wait."""

    phase: str
    current: int = 0
    total: int = 0


Tell = Callable[[_Step], None]


class Pusher:
    """Pushes one reference at a time; any number of them in parallel. A layer goes to a repository once at a time."""

    def __init__(self, assembler: Assembler, executor: Executor, *, concurrent: int) -> None:
        self._assembler = assembler
        self._catalog = assembler.catalog
        self._content = assembler.content
        self._executor = executor
        self._slots = asyncio.Semaphore(concurrent)
        self._flights: Flights[Descriptor, _Step] = Flights()

    async def push_all(self, target: Source, name: Name, progress: Progress) -> None:
        """Send what `name` means: one image, or all images of its index and the index as it came.

        When some of these are neither here nor there, the one image that is here goes out alone, and that is said; with
        several it is not clear which. Errors: as `push`, NotFound (images of the index are missing).
        """
        meaning = self._catalog.meaning(name)
        if meaning is None:
            raise NotFound(f"An image does not exist locally with the tag: {name.familiar_repository}")
        image = self._catalog.images[meaning.image]
        if meaning.index is None:
            await self.push(target, name, image, progress)
            return
        data = await self._assembler.run(self._content.read, meaning.index.digest, MANIFEST_LIMIT)
        entries = documents.read_index(documents.read_object(data, "the manifest list"))
        here = {self._catalog.images[key].manifest: self._catalog.images[key] for key in meaning.images}
        own = [here[entry.descriptor.digest] for entry in entries if entry.descriptor.digest in here]
        for entry in entries:
            if entry.descriptor.digest not in here and not await self._is_there(target, entry.descriptor):
                if meaning.others:
                    progress(
                        {
                            "progressDetail": {},
                            "aux": {"contentMissing": True, "desc": documents.write_descriptor(meaning.index)},
                        }
                    )
                    raise NotFound(_MISSING.format(entry.descriptor.digest))
                selected = Descriptor(media_type=image.manifest_type, digest=image.manifest, size=image.manifest_size)
                note = {
                    "originalIndex": documents.write_descriptor(meaning.index),
                    "selectedManifest": documents.write_descriptor(selected),
                }
                progress({"progressDetail": {}, "aux": {"manifestPushedInsteadOfIndex": True, **note}})
                await self.push(target, name, image, progress)
                return
        with self._catalog.pin([meaning.index.digest, *(blob for each in own for blob in blobs_of(each))]):
            for each in own:
                await self._send_image(target, name, each, progress, at=each.manifest)
            index = Manifest(media_type=meaning.index.media_type, digest=meaning.index.digest, data=data)
            await target.driver.call(RegistryDriver.push_manifest, target.reference, index, target.credentials)
        async with self._catalog.lock:
            by_digest = name.with_digest(index.digest)
            if image.id in self._catalog.images and self._catalog.meaning(by_digest) != meaning:
                others = [key for key in meaning.others if key in self._catalog.images]
                await self._catalog.add(self._catalog.images[image.id], [by_digest], meaning.index, others)
        _done(name, Pushed(index.digest, len(data)), progress)

    async def _is_there(self, target: Source, manifest: Descriptor) -> bool:
        reference = replace(target.reference, tag="", digest=manifest.digest)
        try:
            await target.driver.call(RegistryDriver.resolve, reference, target.credentials)
        except NotFound:
            return False
        return True

    async def push(self, target: Source, name: Name, image: Image, progress: Progress) -> Pushed:
        """Send `image` as `name`, which has a tag. Errors: Unauthorized, Forbidden, Unavailable, DataLoss (a blob)."""
        pushed = await self._send_image(target, name, image, progress)
        async with self._catalog.lock:
            by_digest = name.with_digest(pushed.digest)
            if image.id in self._catalog.images and self._catalog.names.get(by_digest) != image.id:
                await self._catalog.add(self._catalog.images[image.id], [by_digest])
        _done(name, pushed, progress)
        return pushed

    async def _send_image(self, target: Source, name: Name, image: Image, progress: Progress, *, at: str = "") -> Pushed:
        """Layers, configuration and manifest. `at`: under this digest, which the manifest must keep; else under the tag."""
        data = await self._assembler.run(self._content.read, image.manifest, MANIFEST_LIMIT)
        parts = documents.read_manifest(documents.read_object(data, "the manifest"))
        as_it_came = bool(at) or any(known.digest == image.manifest for known in self._catalog.names_of(image.id))
        with self._catalog.pin(blobs_of(image)):
            # Asked first: a registry that cannot be reached, or refuses us, is an error before the first layer's line.
            has_config = await target.driver.call(RegistryDriver.exists, target.reference, parts.config, target.credentials)
            layers = await self._layers(target, name, image, parts.layers, progress, as_it_came=as_it_came)
            config = parts.config
            if layers != list(parts.layers):
                config = replace(config, media_type=documents.OCI_CONFIG)
                data = documents.write_manifest(config, [_in_oci_words(layer) for layer in layers])
            if not has_config:
                await self._config(target, name, config)
            kind = image.manifest_type if layers == list(parts.layers) else documents.OCI_MANIFEST
            manifest = Manifest(media_type=kind, digest=documents.digest_of(data), data=data)
            reference = replace(target.reference, tag="", digest=at) if at else target.reference
            await target.driver.call(RegistryDriver.push_manifest, reference, manifest, target.credentials)
        return Pushed(manifest.digest, len(data))

    async def _config(self, target: Source, name: Name, config: Descriptor) -> None:
        """Not twice at once: Debian's registry takes a manifest for wrong while a blob of it arrives once more."""

        async def work(tell: Tell) -> Descriptor:
            if await self._exists(target, config, tell):
                return config
            return await self._send(target, config, self._content.path(config.digest), "", tell)

        await self._flights.join(f"{name.repository}@{config.digest}", work, lambda step: None)

    async def _layers(
        self,
        target: Source,
        name: Name,
        image: Image,
        sent: Sequence[Descriptor],
        progress: Progress,
        *,
        as_it_came: bool,
    ) -> list[Descriptor]:
        """All layers, side by side; what they are called at the registry, the lowest first."""
        lines = {layer.diff_id: LayerLine(progress, short(layer.diff_id)) for layer in reversed(image.stack)}
        for line in lines.values():
            line.status("Preparing")
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    layer.diff_id: group.create_task(
                        self._layer(target, name, layer, descriptor, lines[layer.diff_id], as_it_is=as_it_came)
                    )
                    for layer, descriptor in reversed(list(zip(image.stack, sent, strict=True)))
                }
        except BaseExceptionGroup as group_error:
            raise first_error(group_error) from None
        return [tasks[layer.diff_id].result() for layer in image.stack]

    async def _layer(
        self, target: Source, name: Name, layer: ImageLayer, sent: Descriptor, line: LayerLine, *, as_it_is: bool
    ) -> Descriptor:
        if any(word in sent.media_type for word in _NOT_OURS):
            line.status("Skipped foreign layer")
            return sent

        async def work(tell: Tell) -> Descriptor:
            if self._slots.locked():
                tell(_Step("Waiting"))
            async with self._slots:
                if as_it_is or sent.media_type.endswith(_COMPRESSED):
                    return await self._whole(target, name, layer, sent, tell)
                return await self._compressed(target, name, layer, tell)

        return await self._flights.join(f"{name.repository}@{sent.digest}", work, _watch(line))

    async def send_blob(
        self, target: Source, name: Name, blob: Descriptor, path: os.PathLike[str], line: LayerLine
    ) -> None:
        """Have one blob, which is in the file `path`, at the registry. Errors: as `push`."""

        async def work(tell: Tell) -> Descriptor:
            async with self._slots:
                if await self._exists(target, blob, tell):
                    return blob
                return await self._send(target, blob, path, "", tell)

        await self._flights.join(f"{name.repository}@{blob.digest}", work, _watch(line))

    async def _whole(self, target: Source, name: Name, layer: ImageLayer, blob: Descriptor, tell: Tell) -> Descriptor:
        """A layer as it is stored."""
        if await self._exists(target, blob, tell):
            return blob
        return await self._send(target, blob, self._content.path(blob.digest), self._mount(name, layer), tell)

    async def _compressed(self, target: Source, name: Name, layer: ImageLayer, tell: Tell) -> Descriptor:
        """A layer that is stored uncompressed."""
        known = self._catalog.compressed.get(layer.blob)
        if known is not None and await self._exists(target, known, tell):
            return known
        async with self._squeezed(layer) as (path, blob):
            if blob != known:
                await self._catalog.remember_compressed(layer.blob, blob)
                if await self._exists(target, blob, tell):
                    return blob
            return await self._send(target, blob, path, self._mount(name, layer), tell)

    @contextlib.asynccontextmanager
    async def _squeezed(self, layer: ImageLayer) -> AsyncIterator[tuple[os.PathLike[str], Descriptor]]:
        stop = pipes.Stop()
        making = asyncio.ensure_future(self._assembler.run(compress, self._content, self._content.path(layer.blob), stop))
        try:
            spool, digest = await asyncio.shield(making)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([making])
            if making.exception() is None:
                making.result()[0].discard()
            raise
        try:
            yield spool.path, Descriptor(media_type=documents.OCI_LAYER + "+gzip", digest=digest, size=spool.size)
        finally:
            spool.discard()

    async def _exists(self, target: Source, blob: Descriptor, tell: Tell) -> bool:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                there = await target.driver.call(RegistryDriver.exists, target.reference, blob, target.credentials)
                break
            except Unavailable as error:
                await _patience(attempt, error, tell)
        if there:
            tell(_Step("Layer already exists"))
        return there

    async def _send(
        self, target: Source, blob: Descriptor, path: os.PathLike[str], mount_from: str, tell: Tell
    ) -> Descriptor:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                mounted = await self._attempt(target, blob, path, mount_from, tell)
                break
            except Unavailable as error:
                await _patience(attempt, error, tell)
        tell(_Step(f"Mounted from {mount_from}" if mounted else "Pushed"))
        return blob

    async def _attempt(self, target: Source, blob: Descriptor, path: os.PathLike[str], mount_from: str, tell: Tell) -> bool:
        descriptor = await self._assembler.run(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
        seen = os.dup(descriptor)

        async def watch() -> None:
            while True:
                if at := os.lseek(seen, 0, os.SEEK_CUR):
                    tell(_Step("Pushing", min(at, blob.size), blob.size))
                await asyncio.sleep(INTERVAL)

        over = False

        async def call() -> bool:
            nonlocal over
            try:
                return await target.driver.call(
                    RegistryDriver.push_blob,
                    target.reference,
                    blob,
                    descriptor,
                    mount_from=mount_from,
                    auth=target.credentials,
                )
            finally:
                over = True

        def end() -> None:  # the driver meets the end of the file, and gives up; also when it begins anew
            os.lseek(seen, 0, os.SEEK_END)
            if not over:  # else the number may be another file's already
                nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
                os.dup2(nothing, descriptor, inheritable=False)
                os.close(nothing)

        watching = asyncio.ensure_future(watch())
        try:
            mounted = await pipes.lend(descriptor, call(), end=end)
            if not mounted:
                tell(_Step("Pushing", blob.size, blob.size))
            return mounted
        finally:
            watching.cancel()
            os.close(seen)

    def _mount(self, name: Name, layer: ImageLayer) -> str:
        """Another repository of the same registry that has been seen with this layer; empty when there is none."""
        for other, image_id in self._catalog.names.items():
            if other.digest and other.domain == name.domain and other.path != name.path:
                stack = self._catalog.images[image_id].stack
                if any(each.diff_id == layer.diff_id for each in stack):
                    return other.path
        return ""


def _watch(line: LayerLine) -> Tell:
    def watch(step: _Step) -> None:
        if step.phase == "Pushing":
            line.moved(step.phase, step.current, step.total)
        else:
            line.status(step.phase)

    return watch


def _done(name: Name, pushed: Pushed, progress: Progress) -> None:
    progress({"status": f"{name.tag}: digest: {pushed.digest} size: {pushed.size}"})
    progress({"progressDetail": {}, "aux": {"Tag": name.tag, "Digest": pushed.digest, "Size": pushed.size}})


async def _patience(attempt: int, error: Unavailable, tell: Tell) -> None:
    """Wait before the next attempt; raise `error` when there is none."""
    if attempt == _ATTEMPTS or isinstance(error, DeadlineExceeded):
        raise error
    await count_down(
        retry_delay(attempt, error), lambda left: tell(_Step(f"Retrying in {left} second{'s' if left != 1 else ''}"))
    )


def _in_oci_words(layer: Descriptor) -> Descriptor:
    """For a manifest of our own, which is OCI's."""
    if layer.media_type.startswith("application/vnd.docker.image.rootfs.diff.tar"):
        suffix = "+gzip" if layer.media_type.endswith("gzip") else ""
        return replace(layer, media_type=documents.OCI_LAYER + suffix)
    return layer
