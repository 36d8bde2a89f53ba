"""An archive that comes in, compressed or not, as the plain archive: nothing else reaches a worker."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

from wharfie.engine.images.decode import HEAD, decoded, is_compressed


async def plain(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """`body`, decompressed if its first bytes say so. Errors: InvalidArgument (damaged)."""
    head = b""
    async for piece in body:
        head += piece
        if len(head) >= HEAD:
            break
    if not is_compressed(head):
        yield head
        async for piece in body:
            yield piece
        return
    async for piece in _decompressed(head, body):
        yield piece


async def _decompressed(head: bytes, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe()
    pouring = loop.create_task(_pour(head, body, writing))
    with ThreadPoolExecutor(1, thread_name_prefix="plain") as thread:
        try:
            pieces = decoded(_Rewound(reading), "the archive")
            while (piece := await loop.run_in_executor(thread, _next, pieces)) is not None:
                yield piece
            await pouring
        finally:
            pouring.cancel()
            await asyncio.wait([pouring])
            os.close(reading)


def _next(pieces: Iterator[bytes]) -> bytes | None:
    return next(pieces, None)


async def _pour(head: bytes, body: AsyncIterator[bytes], writing: int) -> None:
    loop = asyncio.get_running_loop()
    os.set_blocking(writing, False)
    transport, _ = await loop.connect_write_pipe(_Flow, os.fdopen(writing, "wb", buffering=0))
    flow: _Flow = transport.get_protocol()  # type: ignore[assignment]  # the one that was given
    try:
        transport.write(head)
        async for piece in body:
            await flow.ready.wait()
            transport.write(piece)
    finally:
        transport.close()


class _Flow(asyncio.BaseProtocol):
    """Lets `_pour` wait while the pipe is full."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.ready.set()

    def pause_writing(self) -> None:
        self.ready.clear()

    def resume_writing(self) -> None:
        self.ready.set()

    def connection_lost(self, _: Exception | None) -> None:
        self.ready.set()


class _Rewound(io.RawIOBase):
    """The pipe as the decoders want it: they look at the first bytes and step back once."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._looked = b""
        self._ahead = b""

    def read(self, size: int = -1) -> bytes:
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        data = os.read(self._descriptor, size)
        self._looked = data
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        self._ahead = self._looked[offset:] + self._ahead
        return 0
