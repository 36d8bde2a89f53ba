"""Blobs from a registry into the content store: a few at a time, verified, continued where a connection broke."""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Literal, ParamSpec, TypeVar

from wharfie.engine.images import pipes
from wharfie.engine.images.flights import Flights
from wharfie.engine.images.progress import INTERVAL
from wharfie.plugins.supervisor import Supervised
from wharfie.spi.errors import Cancelled, DeadlineExceeded, InvalidArgument, OutOfSpace, Unavailable, WharfieError
from wharfie.spi.registry import Credentials, Descriptor, Reference, RegistryDriver
from wharfie.store.content import ContentStore, Ingest

P = ParamSpec("P")
T = TypeVar("T")

_FIRST_DELAY = 0.5
_LONGEST_DELAY = 15.0
"""Seconds before an attempt is repeated: doubled each time, or what the server asks for, but never longer than this."""


@dataclass(frozen=True, slots=True)
class Step:
    """How far a download is. `current`: bytes, or for "retrying" the seconds to wait."""

    phase: Literal["waiting", "downloading", "retrying", "verifying", "complete"]
    current: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """Where a blob is fetched from."""

    driver: Supervised[RegistryDriver]
    reference: Reference
    credentials: Credentials | None


Tell = Callable[[Step], None]


def retry_delay(attempt: int, error: Unavailable) -> float:
    """Seconds to wait after the `attempt`-th failure (from 1)."""
    return min(error.retry_after or _FIRST_DELAY * 2 ** (attempt - 1), _LONGEST_DELAY)


class Downloader:
    """Fetches blobs; the same one is fetched once, however many ask for it."""

    def __init__(self, content: ContentStore, executor: Executor, *, concurrent: int, attempts: int) -> None:
        self._content = content
        self._executor = executor
        self._slots = asyncio.Semaphore(concurrent)
        self._attempts = attempts
        self._flights: Flights[None, Step] = Flights()

    async def fetch(self, source: Source, blob: Descriptor, watch: Tell) -> None:
        """Have the blob in the content store, whole and verified. What came before the registry or the caller went away,
        or the disk was full, is kept for the next attempt.

        Errors: InvalidArgument (not what its descriptor says), OutOfSpace, the driver's.
        """

        async def work(tell: Tell) -> None:
            await self._fetch(source, blob, tell)

        await self._flights.join(blob.digest, work, watch)

    async def _fetch(self, source: Source, blob: Descriptor, tell: Tell) -> None:
        if await self._run(self._content.size, blob.digest) == blob.size:
            return tell(Step("complete"))
        if self._slots.locked():
            tell(Step("waiting"))
        async with self._slots:
            ingest = await self._run(self._content.ingest, blob.digest, blob.size)
            try:
                await self._whole(source, blob, ingest, tell)
            except (Unavailable, OutOfSpace, asyncio.CancelledError):
                await asyncio.shield(self._run(ingest.close))
                raise
            finally:
                await asyncio.shield(self._run(ingest.discard))
        return tell(Step("complete"))

    async def _whole(self, source: Source, blob: Descriptor, ingest: Ingest, tell: Tell) -> None:
        """Fetch what is missing, and name the blob. What was left of an earlier attempt may be wrong: then all of it."""
        continued = ingest.offset > 0
        await self._attempt_all(source, blob, ingest, tell)
        tell(Step("verifying", blob.size))
        try:
            await self._run(ingest.commit)
        except InvalidArgument:
            if not continued:
                raise
            await self._run(ingest.restart)
            await self._attempt_all(source, blob, ingest, tell)
            await self._run(ingest.commit)

    async def _attempt_all(self, source: Source, blob: Descriptor, ingest: Ingest, tell: Tell) -> None:
        if ingest.offset == blob.size:
            return
        for attempt in range(1, self._attempts + 1):
            try:
                await self._attempt(source, blob, ingest, tell)
                if ingest.offset == blob.size:
                    return
                raise Unavailable(f"unexpected EOF: blob {blob.digest} ended after {ingest.offset} of {blob.size} bytes")
            except Unavailable as error:
                if attempt == self._attempts or isinstance(error, DeadlineExceeded):
                    raise
                await count_down(retry_delay(attempt, error), lambda left: tell(Step("retrying", left)))

    async def _attempt(self, source: Source, blob: Descriptor, ingest: Ingest, tell: Tell) -> None:
        loop = asyncio.get_running_loop()
        reading, writing = pipes.pipe()
        stop = pipes.Stop()

        def moved(count: int) -> None:
            loop.call_soon_threadsafe(tell, Step("downloading", count))

        tell(Step("downloading", ingest.offset))
        pump = loop.run_in_executor(self._executor, _pump, reading, ingest, stop, moved)
        failure: WharfieError | None = None
        try:
            fetch = source.driver.call(
                RegistryDriver.fetch, source.reference, blob, writing, offset=ingest.offset, auth=source.credentials
            )
            await pipes.lend(writing, fetch, end=stop.set)
        except DeadlineExceeded as error:
            stop.set()
            failure = error
        except WharfieError as error:
            failure = error
        finally:
            ours = await pump
        cause = ours or failure  # a driver whose pipe was closed fails too, but is not the cause
        if cause is not None:
            raise cause

    async def _run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """In a thread. Who is cancelled waits for its end all the same, for what follows works on the same files."""
        work = asyncio.get_running_loop().run_in_executor(self._executor, functools.partial(function, *args, **kwargs))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            work.exception()
            raise


async def count_down(seconds: float, tell: Callable[[int], None]) -> None:
    """Sleep, and say each second how many are left."""
    while seconds > 0:
        tell(max(1, round(seconds)))
        await asyncio.sleep(min(seconds, 1.0))
        seconds -= 1.0


def _pump(reading: int, ingest: Ingest, stop: pipes.Stop, moved: Callable[[int], None]) -> WharfieError | None:
    """From the pipe into the file. Gives an error rather than raising it: it must not be lost when the driver fails too."""
    buffer = memoryview(bytearray(pipes.CHUNK))
    said = time.monotonic()
    try:
        while count := pipes.read_some(reading, buffer, stop):
            ingest.write(buffer[:count])
            if time.monotonic() - said >= INTERVAL:
                said = time.monotonic()
                moved(ingest.offset)
    except Cancelled:
        return None
    except WharfieError as error:
        return error
    finally:
        os.close(reading)
    return None
