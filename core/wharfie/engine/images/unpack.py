"""Layers from the content store into the storage driver: decompressed, and proved to be what the configuration says.

A blob may be unpacked while it still arrives. The driver gets the end of a layer only when blob and layer are verified; a
layer that is given up before ends for the driver in something that no archive has, so it makes nothing of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from wharfie.engine.images import pipes
from wharfie.engine.images.decode import decoded
from wharfie.engine.images.flights import Flights
from wharfie.engine.images.progress import INTERVAL
from wharfie.plugins.supervisor import Supervised
from wharfie.spi.errors import Cancelled, Conflict, InvalidArgument, WharfieError
from wharfie.spi.storage import Layer, StorageDriver
from wharfie.store.arrival import Interrupted
from wharfie.store.content import ContentStore

Moved = Callable[[int], None]
"""Called with the bytes of the blob that were read so far, from any thread."""

_PATIENCE = 30.0
"""Seconds that a driver has to notice that its layer was given up: until then the layer must not be touched."""

_HELD = 1 << 18
"""Bytes of a layer that the driver gets last: more than the zeros at an archive's end, which it could do without."""

_GIVEN_UP = b"\xff" * 513
"""Where a header is expected it is none, and it ends within a block: no archive goes on like this, nor an empty one."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A layer to be made: `blob` of the content store, which must unpack to `diff_id`, on top of `parent`."""

    blob: str
    diff_id: str
    chain_id: str
    parent: str | None


class Unpacker:
    """Applies layers, several at once; the same one is applied once, however many ask for it."""

    def __init__(self, content: ContentStore, executor: Executor, *, concurrent: int) -> None:
        self._content = content
        self._executor = executor
        self._slots = asyncio.Semaphore(concurrent)
        self._flights: Flights[Layer, int] = Flights()
        self._wrong: set[str] = set()  # made of something that was not verified, and not yet gone

    async def unpack(self, storage: Supervised[StorageDriver], wanted: Wanted, moved: Moved) -> Layer:
        """Make the layer, or find that it is there; its blob may still be arriving. Without PARALLEL_APPLY its parent must
        be there.

        Errors: InvalidArgument (not a tar, not what the configuration says), OutOfSpace, the driver's; Interrupted (the
        blob did not arrive, or began anew).
        """

        async def work(tell: Moved) -> Layer:
            async with self._slots:
                if wanted.chain_id in self._wrong:
                    await self._take_away(storage, wanted.chain_id)
                return await self._apply(storage, wanted, tell)

        return await self._flights.join(wanted.chain_id, work, moved)

    async def _apply(self, storage: Supervised[StorageDriver], wanted: Wanted, tell: Moved) -> Layer:
        run = asyncio.get_running_loop().run_in_executor
        if wanted.blob == wanted.diff_id and await run(self._executor, self._content.size, wanted.blob) is not None:
            return await self._whole(storage, wanted, tell)
        return await self._decoded(storage, wanted, tell)

    async def _whole(self, storage: Supervised[StorageDriver], wanted: Wanted, tell: Moved) -> Layer:
        """An uncompressed blob: its digest, which was verified, is the diff id. The driver reads the file itself."""
        loop = asyncio.get_running_loop()
        descriptor = await loop.run_in_executor(
            self._executor, os.open, self._content.path(wanted.blob), os.O_RDONLY | os.O_CLOEXEC
        )

        def end() -> None:  # the driver meets the end of the file within a block
            os.lseek(descriptor, max(0, os.fstat(descriptor).st_size - 1), os.SEEK_SET)

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
        witness = os.dup(reading)
        stop = pipes.Stop()
        outlet = _Outlet(writing, stop)

        def moved(count: int) -> None:
            loop.call_soon_threadsafe(tell, count)

        feeder = loop.run_in_executor(self._executor, self._feed, wanted, outlet, stop, moved)
        layer: Layer | None = None
        failure: WharfieError | None = None
        taken = False
        try:
            try:
                apply = storage.call(StorageDriver.apply, wanted.chain_id, wanted.parent, reading)
                layer = await pipes.lend(reading, apply, end=stop.set, patience=_PATIENCE)
            except WharfieError as error:
                failure = error
            finally:
                if layer is None:
                    stop.set()
                taken = pipes.unread(witness) < outlet.sent
                os.close(witness)
                ours = await feeder
            if ours is not None:
                raise ours
            if layer is None:
                raise failure or InvalidArgument(f"layer {wanted.chain_id} was not made")
        except BaseException:
            if taken:  # else what is there is not of this stream, and somebody may stand on it
                with contextlib.suppress(WharfieError):  # then before the next attempt
                    await asyncio.shield(self._take_away(storage, wanted.chain_id))
            raise
        return layer

    async def _take_away(self, storage: Supervised[StorageDriver], chain_id: str) -> None:
        """A driver may have made a layer of a stream that was given up: of an archive with something behind its end."""
        self._wrong.add(chain_id)
        try:
            await storage.call(StorageDriver.remove, chain_id)
        except Conflict:  # a layer stands on it, maybe before it is there
            if any(layer.name == chain_id for layer in await storage.call(StorageDriver.layers)):
                raise
        self._wrong.discard(chain_id)

    def _feed(self, wanted: Wanted, outlet: _Outlet, stop: pipes.Stop, moved: Moved) -> WharfieError | Interrupted | None:
        """Decompress into the pipe. An error is given, not raised: it must not be lost when the driver fails too."""
        try:
            with contextlib.closing(self._content.follow(wanted.blob, stop.check)) as file:
                hasher = hashlib.sha256()
                said = 0.0
                for piece in decoded(file, f"layer {wanted.blob}"):
                    hasher.update(piece)
                    outlet.write(piece)
                    if time.monotonic() - said >= INTERVAL:
                        said = time.monotonic()
                        moved(file.offset)
                found = "sha256:" + hasher.hexdigest()
                if found != wanted.diff_id:
                    return InvalidArgument(
                        f"layer {wanted.blob} unpacks to {found}, but the image's configuration says {wanted.diff_id}"
                    )
                outlet.finish()
        except Cancelled:
            return None  # the driver failed, and says itself why, or nobody wants the layer any more
        except (WharfieError, Interrupted) as error:
            return error
        except OSError as error:
            return WharfieError(f"layer {wanted.blob} cannot be read: {error}")
        finally:
            outlet.close()
        return None


class _Outlet:
    """The pipe to the driver. The end of the stream is held back until it is known to be right: `finish` gives it, `close`
    without it ends the stream as none ends that is whole."""

    def __init__(self, descriptor: int, stop: pipes.Stop) -> None:
        self._descriptor = descriptor
        self._stop = stop
        self.sent = 0
        """Bytes that the pipe has taken."""
        self._held = b""
        self._whole = False
        self._read = True  # a driver that has the layer already does not read

    def write(self, piece: bytes) -> None:
        self._held = self._held + piece if len(piece) < _HELD else self._pass_on(self._held, piece)
        if len(self._held) > 2 * _HELD:
            self._held = self._pass_on(self._held[:-_HELD], self._held[-_HELD:])

    def finish(self) -> None:
        self._held = self._pass_on(self._held, b"")
        self._whole = True

    def close(self) -> None:
        if not self._whole:
            with contextlib.suppress(OSError):
                pipes.write_within(self._descriptor, _GIVEN_UP, _PATIENCE)
        os.close(self._descriptor)

    def _pass_on(self, data: bytes, rest: bytes) -> bytes:
        try:
            if self._read:
                for count in pipes.written(self._descriptor, data, self._stop):
                    self.sent += count
            else:
                self._stop.check()
        except BrokenPipeError:
            self._read = False
        return rest
