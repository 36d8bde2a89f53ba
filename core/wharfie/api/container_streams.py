"""Resource: containers, what streams. Attach, wait, logs, statistics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic_core import to_json
from starlette.responses import Response

from wharfie.api.call import Asked, Call
from wharfie.api.errors import as_answer
from wharfie.api.hijack import TakenOver, connection, content_type, take_stream, wait_head
from wharfie.api.query import Flag, Nanoseconds, Text
from wharfie.api.responses import Json
from wharfie.api.streams import Stream, begun, log_pieces
from wharfie.api.views.stats import stats_view
from wharfie.api.websocket import take_websocket
from wharfie.engine.model.container import Container
from wharfie.spi.errors import InvalidArgument, WharfieError
from wharfie.spi.log import LogQuery
from wharfie.spi.runtime import AttachRequest, ExitReply

router = APIRouter()
log = logging.getLogger("wharfie.api")

DetachKeys = Annotated[str, Query(alias="detachKeys")]

_WAIT_CONDITIONS = ("", "not-running", "next-exit", "removed")
_WAIT_REPLY = ExitReply(before=b'{"StatusCode":', after=b"}\n")


@router.post("/containers/{ref}/attach")
async def attach(
    call: Asked,
    ref: str,
    stream: Flag = False,
    stdin: Flag = False,
    stdout: Flag = False,
    stderr: Flag = False,
    logs: Flag = False,
    detach_keys: DetachKeys = "",
) -> TakenOver:
    containers = call.engine.containers
    framed = not containers.check_attach(ref, detach_keys).config.tty
    client, initial = await take_stream(call.request, call.common_headers, call.version, framed=framed)
    request = AttachRequest(
        stdin=stdin, stdout=stdout, stderr=stderr, framed=framed, initial=initial, detach_keys=detach_keys
    )
    try:
        await containers.attach(ref, client, request, logs=logs, stream=stream)
    except WharfieError as error:
        # The answer has begun: there is no way to tell the client but the end of its stream.
        log.warning("attach to %s: %s", ref, error)
        client.close()
    return TakenOver()


@router.get("/containers/{ref}/attach/ws")
async def attach_websocket(
    call: Asked,
    ref: str,
    stream: Flag = False,
    stdin: Flag = False,
    stdout: Flag = False,
    stderr: Flag = False,
    logs: Flag = False,
    detach_keys: DetachKeys = "",
) -> TakenOver:
    containers = call.engine.containers
    containers.check_attach(ref, detach_keys)
    client = await take_websocket(call.request, call.common_headers)
    request = AttachRequest(stdin=stdin, stdout=stdout, stderr=stderr, framed=False, detach_keys=detach_keys)
    try:
        await containers.attach(ref, client, request, logs=logs, stream=stream)
    except WharfieError as error:
        log.warning("attach to %s: %s", ref, error)
        client.close()
    return TakenOver()


@router.post("/containers/{ref}/wait")
async def wait(call: Asked, ref: str, condition: Text = "") -> TakenOver:
    """The head is sent at once; the body is written at the container's end by the engine, or beside the container when
    the daemon is gone by then."""
    if condition not in _WAIT_CONDITIONS:
        raise InvalidArgument(f'invalid condition: "{condition}"')
    containers = call.engine.containers
    container = containers.get(ref)
    client, _ = await connection(call.request).take(wait_head(call.common_headers))
    # Nothing may come in between: the client's start may follow its receipt of the head immediately.
    try:
        await containers.hand_over_wait(container.id, condition or "not-running", client, _WAIT_REPLY)
    except WharfieError as error:
        log.warning("wait for %s: %s", ref, error)
        reply = to_json({"StatusCode": -1, "Error": {"Message": as_answer(error)[1]}}) + b"\n"
        with client:
            await asyncio.get_running_loop().sock_sendall(client, reply)
    return TakenOver()


@router.get("/containers/{ref}/logs")
async def logs(
    call: Asked,
    ref: str,
    stdout: Flag = False,
    stderr: Flag = False,
    follow: Flag = False,
    timestamps: Flag = False,
    details: Flag = False,
    since: Nanoseconds = None,
    until: Nanoseconds = None,
    tail: Text = "all",
) -> Response:
    if not stdout and not stderr:
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    containers = call.engine.containers
    framed = not containers.get(ref).config.tty
    query = LogQuery(tail=_tail(tail), since_ns=since or 0, until_ns=until or 0, follow=follow)
    batches = containers.logs(ref, query, stdout=stdout, stderr=stderr)
    pieces = log_pieces(batches, framed=framed, timestamps=timestamps, details=details, apart=follow)
    if not follow:
        # A log that is followed may say nothing for hours, and its client waits for the head.
        pieces = await begun(pieces)
    return Stream(pieces, content_type(call.version, framed=framed))


def _tail(text: str) -> int:
    """How many of the last lines; whatever is no number means all, as it does for Docker."""
    return int(text) if text.isdecimal() and len(text) < 10 else -1


@router.get("/containers/{ref}/stats")
async def stats(
    call: Asked, ref: str, stream: Flag = True, one_shot: Annotated[Flag, Query(alias="one-shot")] = False
) -> Response:
    container = call.engine.containers.get(ref)
    if stream:
        return Stream(_samples(call, container), Json.media_type)
    if not container.state.running or one_shot:
        return Json(await _sample(call, container, None, named=not one_shot))
    first = await _sample(call, container, None)
    await asyncio.sleep(1)
    return Json(await _sample(call, container, first))


async def _samples(call: Call, container: Container) -> AsyncIterator[bytes]:
    """One object a second until the container is removed."""
    previous: dict[str, Any] | None = None
    while True:
        try:
            current = call.engine.containers.get(container.id)
            previous = await _sample(call, current, previous)
        except WharfieError:
            return
        yield to_json(previous) + b"\n"
        await asyncio.sleep(1)


async def _sample(
    call: Call, container: Container, previous: dict[str, Any] | None, *, named: bool = True
) -> dict[str, Any]:
    counters = await call.engine.containers.stats(container.id) if container.state.running else {}
    memory = call.engine.system.host.memory
    return stats_view(container, counters, previous, host_memory=memory, named=named)
