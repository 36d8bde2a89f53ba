"""An archive that comes in, compressed or not, as the plain archive: nothing else reaches a worker."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Iterator

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
    source = _Pulled(head, body, asyncio.get_running_loop())
    pieces = decoded(source, "the archive")
    try:
        while (unpacked := await asyncio.to_thread(_next, pieces)) is not None:
            yield unpacked
    finally:
        source.stop()


def _next(pieces: Iterator[bytes]) -> bytes | None:
    return next(pieces, None)


class _Pulled:
    """A request's body as a file for a decoder's thread."""

    def __init__(self, head: bytes, body: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._ahead = head
        self._body = body
        self._loop = loop
        self._waiting: concurrent.futures.Future[bytes] | None = None
        self._stopped = False

    def read(self, size: int, /) -> bytes:
        while not self._ahead and not self._stopped:
            self._waiting = asyncio.run_coroutine_threadsafe(self._pull(), self._loop)
            try:
                self._ahead = self._waiting.result()
            except concurrent.futures.CancelledError:
                return b""
            if not self._ahead:
                return b""
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return data

    async def _pull(self) -> bytes:
        async for piece in self._body:
            if piece:
                return piece
        return b""

    def stop(self) -> None:
        """Nobody wants more: the thread gets the end of the file."""
        self._stopped = True
        if self._waiting is not None:
            self._waiting.cancel()
