"""Answers that go on: logs, events, progress, archives. Each ends when its source does or when its client goes away."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, TypeVar
from urllib.parse import quote_plus

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from wharfie.api.errors import as_answer
from wharfie.api.hijack import connection
from wharfie.api.protocol import HIJACK
from wharfie.api.responses import Json
from wharfie.spi.log import LogRun

_FRAME = struct.Struct(">BxxxL")
_STREAMS = {"stdin": 0, "stdout": 1, "stderr": 2}

PROGRESS_BACKLOG = 1000
"""Messages that may wait for a slow client; then those that only count bytes are left out."""

T = TypeVar("T")
Message = Mapping[str, Any]
Work = Callable[[Callable[[Message], None]], Awaitable[Any]]


class Stream(Response):
    """A body of pieces. `pieces` is closed when the client goes away, wherever it stands."""

    def __init__(self, pieces: AsyncIterator[bytes], media_type: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(None, 200, headers, media_type)
        if "content-length" in self.headers:
            del self.headers["content-length"]
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        gone = False

        def leave() -> None:
            nonlocal gone
            if not gone and task is not None:
                gone = True
                task.cancel()

        try:
            with scope["extensions"][HIJACK].when_gone(leave):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                async with closing(self._pieces) as pieces:
                    async for piece in pieces:
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
        except asyncio.CancelledError:
            if not gone or task is None or task.uncancel():
                raise
        await send({"type": "http.response.body", "body": b"", "more_body": False})


@asynccontextmanager
async def closing(pieces: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """`pieces`, closed at the end if that can be done: a generator then cleans up at once."""
    try:
        yield pieces
    finally:
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()


async def begun(pieces: AsyncIterator[T]) -> AsyncIterator[T]:
    """`pieces` after its first one was awaited, so that an error before it can still be an HTTP status."""
    try:
        first = [await anext(pieces)]
    except StopAsyncIteration:
        first = []
    return _continued(first, pieces)


async def _continued(first: Sequence[T], rest: AsyncIterator[T]) -> AsyncIterator[T]:
    async with closing(rest):
        for piece in first:
            yield piece
        async for piece in rest:
            yield piece


# Logs


def frame(stream: str, data: bytes) -> bytes:
    """Docker's eight-byte head and the data."""
    return _FRAME.pack(_STREAMS[stream], len(data)) + data


def timestamp(time_ns: int) -> str:
    """RFC 3339 with nine decimals, as Docker writes log times."""
    seconds, nanoseconds = divmod(time_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"


def log_head(run: LogRun, *, timestamps: bool, details: bool) -> bytes:
    """What `GET /containers/{id}/logs` shows before each entry of a run: time, details."""
    head = f"{timestamp(run.time_ns)} " if timestamps else ""
    if details:
        head += ",".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in sorted(run.attributes.items())) + " "
    return head.encode()


async def log_pieces(
    batches: AsyncIterator[Sequence[LogRun]], *, framed: bool, timestamps: bool, details: bool, apart: bool
) -> AsyncIterator[bytes]:
    """A log as a stream, one piece for each batch of runs.

    `apart`: each entry in a frame of its own, as those expect who follow a log and take a frame for a line. A log that is
    only read to its end may have millions of them, and a client is many times faster with few large frames.
    """
    async with closing(batches) as source:
        async for batch in source:
            yield b"".join(_log_frames(batch, framed, timestamps, details, apart))


def _log_frames(batch: Sequence[LogRun], framed: bool, timestamps: bool, details: bool, apart: bool) -> Iterator[bytes]:
    for stream, runs in groupby(batch, key=lambda run: run.stream):
        pieces: list[bytes] = []
        for run in runs:
            head = log_head(run, timestamps=timestamps, details=details)
            if head or apart:
                pieces += [head + entry for entry in run.entries()]
            else:
                pieces.append(run.data)
        if not framed:
            yield from pieces
        elif apart:
            yield from (frame(stream, piece) for piece in pieces)
        else:
            yield frame(stream, b"".join(pieces))


# Progress


class Progress:
    """The JSON messages of a long operation, from where it works to where they are sent. Never blocks."""

    def __init__(self) -> None:
        self._waiting: deque[Message] = deque()
        self._more = asyncio.Event()

    def __call__(self, message: Message) -> None:
        """Tell the client. Too many for a slow one: those that only count bytes are left out."""
        if len(self._waiting) < PROGRESS_BACKLOG or not message.get("progressDetail"):
            self._waiting.append(message)
            self._more.set()

    async def wait(self) -> None:
        await self._more.wait()

    def take(self) -> bytes:
        """All that waits, as lines."""
        lines = b"".join(to_json(dict(message)) + b"\r\n" for message in self._waiting)
        self._waiting.clear()
        self._more.clear()
        return lines


async def progress_response(request: Request, work: Work, *, always_in_band: bool = False) -> Response:
    """Run `work`, which is given a callable for its messages, and stream them.

    An error before the first message is raised, and so becomes a status, unless `always_in_band`; a later one is a message
    of its own. When the client goes away, the work is cancelled.
    """
    progress = Progress()
    task = asyncio.ensure_future(work(progress))
    with connection(request).when_gone(task.cancel):
        return Stream(await begun(_progress_pieces(task, progress, always_in_band)), Json.media_type)


async def _progress_pieces(task: asyncio.Future[Any], progress: Progress, always_in_band: bool) -> AsyncIterator[bytes]:
    sent = always_in_band
    try:
        while not task.done():
            more = asyncio.ensure_future(progress.wait())
            try:
                await asyncio.wait((task, more), return_when=asyncio.FIRST_COMPLETED)
            finally:
                more.cancel()
            lines = progress.take()
            if lines:
                sent = True
                yield lines
        error = None if task.cancelled() else task.exception()
        lines = progress.take()
        if error is not None and not sent and not lines:
            raise error
        if error is not None:
            lines += error_line(error)
        if lines:
            yield lines
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))


def error_line(error: BaseException) -> bytes:
    """An error inside a stream of messages."""
    text = as_answer(error)[1]
    return to_json({"errorDetail": {"message": text}, "error": text}) + b"\r\n"
