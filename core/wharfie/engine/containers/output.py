"""A container's output: attached clients and its log."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from wharfie.engine.containers.catalog import Catalog
from wharfie.engine.containers.start import container_attributes
from wharfie.engine.events import Events
from wharfie.engine.model.container import Container
from wharfie.plugins.drivers import Drivers
from wharfie.shim import detach_keys
from wharfie.spi.errors import Conflict, InvalidArgument
from wharfie.spi.log import LogDriver, LogEntry, LogQuery, LogReader, LogRun, RunReader
from wharfie.spi.runtime import AttachRequest, RuntimeDriver

_BATCH = 512  # entries read at once: a slow client holds no more than that
T = TypeVar("T")
_STREAM_NUMBER = {"stdout": 1, "stderr": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    catalog: Catalog
    drivers: Drivers
    events: Events

    def check_attach(self, ref: str, keys: str) -> Container:
        """What must be an error before the connection is taken over. `keys`: by which the client wants to leave.

        Errors: NotFound, Conflict, InvalidArgument."""
        detach_keys.check(keys, "detach keys")
        container = self.catalog.get(ref)
        if container.state.status == "paused":
            raise Conflict(f"container {container.name} is paused, unpause the container before attach")
        if container.state.status == "restarting":
            raise Conflict(f"container {container.name} is restarting, wait until the container is running")
        return container

    async def attach(self, ref: str, client: socket.socket, request: AttachRequest, *, logs: bool, stream: bool) -> None:
        """Serve a client whose connection was taken over; owns it. Before a start it is remembered for the start."""
        container = self.catalog.get(ref)
        try:
            if logs:
                await self._replay(container, client, request)
            if not stream:
                client.close()
                return
            self.events.emit("container", "attach", container.id, container_attributes(container))
            live = self.catalog.live(container)
            async with live.lock:
                if not container.state.running:
                    live.attaching.append((client, request))
                    return
                runtime = await self.drivers.get(RuntimeDriver, container.runtime)
                with client:
                    await runtime.call(RuntimeDriver.attach, container.id, "", client, request)
        except BaseException:
            client.close()
            raise

    async def _replay(self, container: Container, client: socket.socket, request: AttachRequest) -> None:
        """`logs=1`: what was written so far comes first."""
        loop = asyncio.get_running_loop()
        client.setblocking(False)
        async for runs in self.logs(container.id, LogQuery(), stdout=request.stdout, stderr=request.stderr):
            framed = b"".join(_frame(run.stream, run.data) if request.framed else run.data for run in runs)
            await loop.sock_sendall(client, framed)

    async def logs(self, ref: str, query: LogQuery, *, stdout: bool, stderr: bool) -> AsyncIterator[Sequence[LogRun]]:
        """The log in batches; the first one, maybe empty, comes at once, so that errors come before it.

        Following ends with the container. Errors: NotFound, InvalidArgument, Unsupported (the driver cannot read).
        """
        container = self.catalog.get(ref)
        if not (stdout or stderr):
            raise InvalidArgument("Bad parameters: you must choose at least one stream")
        driver = await self.drivers.get(LogDriver, container.log_driver)
        facts = self.catalog.facts(container)
        reader = await _opened(driver.call(LogDriver.open_reader, facts, container.log_options, query))
        streams = {name for name, wanted in (("stdout", stdout), ("stderr", stderr)) if wanted}
        try:
            yield ()
            async for runs in self._read(container, reader, query.follow):
                if chosen := [run for run in runs if run.stream in streams]:
                    yield chosen
        finally:
            reader.close()

    async def _read(self, container: Container, reader: LogReader, follow: bool) -> AsyncIterator[Sequence[LogRun]]:
        live = self.catalog.live(container)
        read = reader.read_runs if isinstance(reader, RunReader) else lambda: _runs(reader.read(_BATCH))
        with _Readiness(reader.fileno()) as ready:
            ended = live.waiting.future("next-exit")
            while True:
                running = follow and container.state.running and not ended.done()
                while runs := await _to_its_end(read):
                    yield runs
                if not running:
                    return
                events: set[asyncio.Future[Any]] = {ready.wait(), ended}
                await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)


class _Readiness:
    """Waits in the loop for a descriptor to become readable."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] | None = None

    def __enter__(self) -> _Readiness:
        return self

    def wait(self) -> asyncio.Future[None]:
        if self._future is None or self._future.done():
            self._future = self._loop.create_future()
            self._loop.add_reader(self._descriptor, self._fired)
        return self._future

    def _fired(self) -> None:
        self._loop.remove_reader(self._descriptor)
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(self._descriptor)


async def _opened(opening: Awaitable[LogReader]) -> LogReader:
    """The reader; when its client has left before it was there, it is closed as soon as it is."""
    task = asyncio.ensure_future(opening)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_close_late)
        raise


def _close_late(task: asyncio.Future[LogReader]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _to_its_end(read: Callable[[], T]) -> T:
    """What a thread reads. Even when cancelled this waits for the thread: its descriptors must not be closed before."""
    reading = asyncio.get_running_loop().run_in_executor(None, read)
    try:
        return await asyncio.shield(reading)
    except asyncio.CancelledError:
        await asyncio.wait((reading,))
        raise


def _runs(entries: Sequence[LogEntry]) -> Sequence[LogRun]:
    return [
        LogRun(stream=entry.stream, data=entry.data, time_ns=entry.time_ns, attributes=entry.attributes)
        for entry in entries
    ]


def _frame(stream: str, data: bytes) -> bytes:
    """Docker's multiplexed stream: one byte of stream, three of zeros, four of length."""
    return bytes((_STREAM_NUMBER[stream], 0, 0, 0)) + len(data).to_bytes(4) + data
