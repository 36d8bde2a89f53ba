"""Resource: further processes in running containers."""

from __future__ import annotations

import logging

from fastapi import APIRouter
from starlette.responses import Response

from wharfie.api.call import Asked
from wharfie.api.containers import size_of
from wharfie.api.hijack import TakenOver, take_stream
from wharfie.api.query import Integer
from wharfie.api.responses import Empty, Json
from wharfie.api.views.exec import exec_view
from wharfie.engine.model.base import Model, Size
from wharfie.engine.model.container import ExecCreate
from wharfie.spi.errors import WharfieError
from wharfie.spi.runtime import AttachRequest

router = APIRouter()
log = logging.getLogger("wharfie.api")


class ExecStart(Model):
    """Body of `POST /exec/{id}/start`."""

    detach: bool = False
    tty: bool = False
    console_size: Size | None = None


@router.post("/containers/{ref}/exec")
async def create(call: Asked, ref: str) -> Response:
    return Json({"Id": await call.engine.execs.create(ref, await call.body(ExecCreate))}, 201)


@router.post("/exec/{exec_id}/start")
async def start(call: Asked, exec_id: str) -> Response:
    execs = call.engine.execs
    asked = await call.body(ExecStart)
    record = execs.check_start(exec_id)
    size = asked.console_size if asked.tty else None
    if asked.detach:
        await execs.start(record.id, client=None, request=AttachRequest(), size=size)
        return Empty(200)
    client, initial = await take_stream(call.request, call.common_headers, call.version, framed=not asked.tty)
    created = record.request
    request = AttachRequest(
        stdin=created.attach_stdin,
        stdout=created.attach_stdout,
        stderr=created.attach_stderr,
        framed=not asked.tty,
        initial=initial,
        detach_keys=created.detach_keys,
    )
    try:
        await execs.start(record.id, client=client, request=request, size=size)
    except WharfieError as error:
        log.warning("exec %s: %s", exec_id, error)
        client.close()
    return TakenOver()


@router.post("/exec/{exec_id}/resize")
async def resize(call: Asked, exec_id: str, h: Integer = None, w: Integer = None) -> Response:
    await call.engine.execs.resize(exec_id, *size_of(h, w))
    return Empty(200)


@router.get("/exec/{exec_id}/json")
async def inspect(call: Asked, exec_id: str) -> Response:
    return Json(exec_view(call.engine.execs.get(exec_id)))
