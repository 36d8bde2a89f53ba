"""Layers from the content store into the storage driver: decompressed, and proved to be what the configuration says."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from wharfie.engine.images import pipes
from wharfie.engine.images.decode import decoded
from wharfie.engine.images.flights import Flights
from wharfie.engine.images.progress import INTERVAL
from wharfie.plugins.supervisor import Supervised
from wharfie.spi.errors import Cancelled, InvalidArgument, WharfieError
from wharfie.spi.storage import Layer, StorageDriver
from wharfie.store.content import ContentStore

Moved = Callable[[int], None]
"""Called with the bytes of the blob that were read so far, from any thread."""

_PATIENCE = 30.0
"""Seconds that a driver has to notice that a stream was cut: until then its layer must not be touched."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A layer to be made: `blob` of the content store, which must unpack to `diff_id`, on top of `parent`."""

    blob: str
    diff_id: str
    chain_id: str
    parent: str | None


class Unpacker:
    """Applies layers; the same one is applied once, however many ask for it."""

    def __init__(self, content: ContentStore, executor: Executor) -> None:
        self._content = content
        self._executor = executor
        self._flights: Flights[Layer, int] = Flights()

    async def unpack(self, storage: Supervised[StorageDriver], wanted: Wanted, moved: Moved) -> Layer:
        """Make the layer, or find that it is there. Its parent must be there already.

        Errors: InvalidArgument (not a tar, not what the configuration says), OutOfSpace, the driver's.
        """

        async def work(tell: Moved) -> Layer:
            if wanted.blob == wanted.diff_id:
                return await self._whole(storage, wanted, tell)
            return await self._decoded(storage, wanted, tell)

        return await self._flights.join(wanted.chain_id, work, moved)

    async def _whole(self, storage: Supervised[StorageDriver], wanted: Wanted, tell: Moved) -> Layer:
        """An uncompressed blob: its digest, which was verified, is the diff id. The driver reads the file itself."""
        loop = asyncio.get_running_loop()
        descriptor = await loop.run_in_executor(
            self._executor, os.open, self._content.path(wanted.blob), os.O_RDONLY | os.O_CLOEXEC
        )

        def end() -> None:  # the driver meets the end of the file, and gives up
            os.lseek(descriptor, 0, os.SEEK_END)

        async def watch() -> None:
            while True:
                await asyncio.sleep(INTERVAL)
                tell(os.lseek(descriptor, 0, os.SEEK_CUR))

        apply = storage.call(StorageDriver.apply, wanted.chain_id, wanted.parent, descriptor)
        watching = loop.create_task(watch())
        try:
            return await pipes.lend(descriptor, apply, end=end, patience=_PATIENCE)
        finally:
            watching.cancel()

    async def _decoded(self, storage: Supervised[StorageDriver], wanted: Wanted, tell: Moved) -> Layer:
        loop = asyncio.get_running_loop()
        reading, writing = pipes.pipe()
        os.set_blocking(writing, False)
        stop = pipes.Stop()

        def moved(count: int) -> None:
            loop.call_soon_threadsafe(tell, count)

        feeder = loop.run_in_executor(self._executor, self._feed, wanted, writing, stop, moved)
        layer: Layer | None = None
        failure: WharfieError | None = None
        try:
            apply = storage.call(StorageDriver.apply, wanted.chain_id, wanted.parent, reading)
            layer = await pipes.lend(reading, apply, end=stop.set, patience=_PATIENCE)
        except WharfieError as error:
            failure = error
        finally:
            if layer is None:
                stop.set()
            ours = await feeder
        if ours is not None:
            if layer is not None:
                await storage.call(StorageDriver.remove, wanted.chain_id)
            raise ours
        if layer is None:
            raise failure or InvalidArgument(f"layer {wanted.chain_id} was not made")
        return layer

    def _feed(self, wanted: Wanted, writing: int, stop: pipes.Stop, moved: Moved) -> WharfieError | None:
        """Decompress into the pipe. An error is given, not raised: it must not be lost when the driver fails too."""
        try:
            with open(self._content.path(wanted.blob), "rb") as file:
                hasher = hashlib.sha256()
                for piece in decoded(file, f"layer {wanted.blob}"):
                    hasher.update(piece)
                    pipes.write_all(writing, piece, stop)
                    moved(file.tell())
            found = "sha256:" + hasher.hexdigest()
            if found != wanted.diff_id:
                return InvalidArgument(
                    f"layer {wanted.blob} unpacks to {found}, but the image's configuration says {wanted.diff_id}"
                )
        except (BrokenPipeError, Cancelled):
            return None  # the driver has enough: the layer is there, or it says itself what is wrong
        except WharfieError as error:
            return error
        except OSError as error:
            return WharfieError(f"layer {wanted.blob} cannot be read: {error}")
        finally:
            os.close(writing)
        return None
