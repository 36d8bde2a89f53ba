"""How an image is put together from blobs that are here: pinned, unpacked, recorded, or taken away again as a whole."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Executor
from typing import Any, ParamSpec, TypeVar

from wharfie.engine.images import documents
from wharfie.engine.images.catalog import Catalog, blobs_of, layout_index
from wharfie.engine.images.documents import ImageConfig
from wharfie.engine.images.flights import first_error
from wharfie.engine.images.reference import Name
from wharfie.engine.images.unpack import Moved, Unpacker, Wanted
from wharfie.engine.model.image import Image, ImageLayer
from wharfie.plugins.drivers import Drivers
from wharfie.spi.errors import Conflict, OutOfSpace, Unavailable, WharfieError
from wharfie.spi.hooks import Repository
from wharfie.spi.registry import Descriptor
from wharfie.spi.storage import StorageCapability, StorageDriver
from wharfie.store.content import ContentStore

P = ParamSpec("P")
T = TypeVar("T")

_LOG = logging.getLogger(__name__)

UNPACKS = 4
"""Layers that are unpacked at once: most of it is the kernel's work and waiting for the disk, so more than processors."""


LayerMaker = Callable[[Callable[[], Awaitable[None]]], Coroutine[Any, Any, ImageLayer]]
"""Makes a layer; awaits its argument before it unpacks it."""


class Assembler:
    """What pull, load and import have in common, and removal undoes."""

    def __init__(
        self, catalog: Catalog, content: ContentStore, drivers: Drivers, executor: Executor, *, storage_driver: str
    ) -> None:
        self.catalog = catalog
        self.content = content
        self._drivers = drivers
        self.executor = executor
        self._storage_driver = storage_driver
        self._unpacker = Unpacker(content, executor, concurrent=UNPACKS)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """In a thread: whatever touches the disk."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, functools.partial(function, *args, **kwargs))

    @contextlib.asynccontextmanager
    async def building(self, chains: Sequence[str], blobs: Sequence[str], *, keep: bool = False) -> AsyncIterator[None]:
        """Nothing of these is garbage meanwhile. If it fails, what no other image needs is taken away.

        `chains`: the lowest layer first. `keep`: blobs are set aside for the next attempt when the registry or the caller
        went away, or the disk was full.
        """
        async with self.catalog.lock:  # what is being removed is gone before anybody counts on it
            pins = self.catalog.pin([*chains, *blobs])
            pins.__enter__()
        try:
            yield
        except BaseException as error:
            pins.__exit__(None, None, None)
            aside = keep and isinstance(error, Unavailable | OutOfSpace | asyncio.CancelledError)
            await asyncio.shield(self._take_away(chains, blobs, aside=aside))
            raise
        pins.__exit__(None, None, None)

    @contextlib.asynccontextmanager
    async def making_room(self, but: Sequence[str] = ()) -> AsyncIterator[None]:
        """When the disk turns out to be full, what is left of downloads goes, `but` these: the next attempt has more."""
        try:
            yield
        except OutOfSpace:
            left = await self.run(self.content.leftovers)
            await self.run(self.content.drop_leftovers, left.keys() - {*but})
            raise

    async def _take_away(self, chains: Sequence[str], blobs: Sequence[str], *, aside: bool) -> None:
        async with self.catalog.lock:
            wanted = self.catalog.wanted_layers()
            await self.remove_layers([chain for chain in reversed(chains) if chain not in wanted])
            kept = self.catalog.wanted_blobs()
            lost = [blob for blob in blobs if blob not in kept]
            await (self.set_aside(lost) if aside else self.remove_blobs(lost))
            if not aside:  # what came of the others before one of them turned out wrong
                await self.run(self.content.drop_leftovers, lost)

    async def admit(self, reference: str, manifest: bytes, index: str = "", repository: Repository | None = None) -> None:
        """Ask the hook plugins. `index`: the digest of the index that led to the manifest.

        Errors: Forbidden (one denies it), Unavailable (a required one is missing or failed).
        """
        await self._drivers.hooks.admit_image(reference, documents.digest_of(manifest), manifest, index, repository)

    async def unpack(self, wanted: Wanted, moved: Moved) -> int:
        """Bytes of the layer, unpacked. Errors: see `Unpacker.unpack`."""
        storage = await self._drivers.get(StorageDriver, self._storage_driver)
        layer = await self._unpacker.unpack(storage, wanted, moved)
        return layer.size

    async def stack(self, layers: Sequence[ImageLayer | LayerMaker]) -> list[ImageLayer]:
        """All layers of an image, the lowest first: those that are there, and those that are made side by side.

        A driver that cannot unpack a layer before the one below gets them in turn. Errors: the first that happens.
        """
        storage = await self._drivers.get(StorageDriver, self._storage_driver)
        any_order = StorageCapability.PARALLEL_APPLY in storage.capabilities
        made: list[ImageLayer | asyncio.Task[ImageLayer]] = []
        try:
            async with asyncio.TaskGroup() as group:
                for layer in layers:
                    if isinstance(layer, ImageLayer):
                        made.append(layer)
                        continue
                    below = made[-1] if made and not any_order else None
                    made.append(group.create_task(layer(_after(below))))
        except BaseExceptionGroup as group_error:
            raise first_error(group_error) from None
        stack = [layer.result() if isinstance(layer, asyncio.Task) else layer for layer in made]
        if any_order and len(stack) > 1:
            # What a layer takes from those below, such as a hard link, may have been left for later: now it must be right.
            await storage.call(StorageDriver.mounts, stack[-1].chain_id)
        return stack

    async def record(
        self,
        id: str,
        config: ImageConfig,
        layers: Sequence[ImageLayer],
        *,
        manifest: bytes | None,
        manifest_type: str = documents.OCI_MANIFEST,
        config_type: str = documents.OCI_CONFIG,
        names: Sequence[Name] = (),
        index: Descriptor | None = None,
        parent: str = "",
        admitted: bool = False,
    ) -> Image:
        """Make the image visible. `manifest` None: one is written from what is here. `index`: what its names came by.
        `admitted`: plugins were asked."""
        size = await self.run(self.content.size, id)
        if manifest is None:
            manifest_type = documents.OCI_MANIFEST
            blobs = [Descriptor(media_type=layer.media_type, digest=layer.blob, size=layer.blob_size) for layer in layers]
            manifest = documents.write_manifest(Descriptor(media_type=config_type, digest=id, size=size or 0), blobs)
        if not admitted:
            await self.admit(names[0].canonical if names else id, manifest)
        image = Image(
            id=id,
            parent=parent,
            created=config.created,
            comment=config.comment,
            author=config.author,
            docker_version=config.docker_version,
            architecture=config.platform.architecture,
            variant=config.platform.variant,
            os=config.platform.os,
            config=config.config,
            stack=list(layers),
            history=list(config.history),
            manifest=documents.digest_of(manifest),
            manifest_type=manifest_type,
            manifest_size=len(manifest),
        )
        with self.catalog.pin([image.manifest]):
            await self.run(self.content.put, manifest)
            async with self.catalog.lock:
                await self.catalog.add(image, names, index)
        await self.write_index()
        return self.catalog.images[id]

    async def write_index(self) -> None:
        """After each change of images or names."""
        await self.run(self.content.write_index, layout_index(self.catalog))
        for digest in self.catalog.take_stale():
            await self.run(self.content.remove, digest)

    async def remove_layers(self, chains: Sequence[str]) -> None:
        """The topmost first. One that a container still stands on stays; the next reconciliation gets it."""
        if not chains:
            return
        storage = await self._drivers.get(StorageDriver, self._storage_driver)
        for chain in chains:
            try:
                await storage.call(StorageDriver.remove, chain)
            except Conflict:
                continue
            except WharfieError as error:
                _LOG.error("layer %s is unused and could not be removed: %s", chain, error.message)

    async def set_aside(self, blobs: Sequence[str]) -> None:
        """Keep them for a while: see `ContentStore.set_aside`."""
        await self.catalog.forget_compressed(blobs)
        for blob in blobs:
            await self.run(self.content.set_aside, blob)
        await self.run(self.content.bound_leftovers)

    async def is_whole(self, image: Image) -> bool:
        """Whether every blob of the image is here."""
        return all([await self.run(self.content.size, blob) is not None for blob in blobs_of(image)])

    async def layer_at_hand(self, chain: str) -> ImageLayer | None:
        """A layer that is unpacked and whose blob is here."""
        layer = self.catalog.layer(chain)
        return layer if layer is not None and await self.run(self.content.size, layer.blob) is not None else None

    async def remove_blobs(self, blobs: Sequence[str]) -> None:
        await self.catalog.forget_compressed(blobs)
        for blob in blobs:
            await self.run(self.content.remove, blob)


def _after(below: ImageLayer | asyncio.Task[ImageLayer] | None) -> Callable[[], Awaitable[None]]:
    async def wait() -> None:
        if isinstance(below, asyncio.Task):
            await asyncio.wait([below])  # its failure ends all of them

    return wait
