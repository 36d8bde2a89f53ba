"""Resource: containers, their life. What streams is in `container_streams`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from wharfie.api.call import Asked
from wharfie.api.query import Filters, Flag, Integer, Text
from wharfie.api.responses import Empty, Json
from wharfie.engine.model.container import ContainerCreate
from wharfie.engine.model.update import UpdateRequest
from wharfie.spi.errors import InvalidArgument

router = APIRouter()

_START_BODY = 7
"""Bytes. Old clients send an empty JSON object to `start`; a longer body would be settings, which are not read."""


@router.post("/containers/create")
async def create(call: Asked, name: Text = "", platform: Text = "") -> Response:
    request = await call.body(ContainerCreate)
    created = await call.engine.containers.create(request, name, platform)
    return Json({"Id": created.id, "Warnings": created.warnings}, 201)


@router.post("/containers/{ref}/start")
async def start(
    call: Asked, ref: str, checkpoint: Text = "", directory: Annotated[str, Query(alias="checkpoint-dir")] = ""
) -> Response:
    length = call.request.headers.get("content-length", "0")
    if "transfer-encoding" in call.request.headers or (length.isdigit() and int(length) > _START_BODY):
        raise InvalidArgument(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
        )
    if checkpoint and not call.engine.settings.experimental:
        raise InvalidArgument("checkpoint is only supported in experimental mode")
    started = await call.engine.containers.start(ref, checkpoint=checkpoint, checkpoint_dir=directory)
    return Empty(204 if started else 304)


@router.post("/containers/{ref}/stop")
async def stop(call: Asked, ref: str, t: Integer = None, signal: Text = "") -> Response:
    return Empty(204 if await call.engine.containers.stop(ref, timeout=t, signal=signal) else 304)


@router.post("/containers/{ref}/restart")
async def restart(call: Asked, ref: str, t: Integer = None, signal: Text = "") -> Response:
    await call.engine.containers.restart(ref, timeout=t, signal=signal)
    return Empty()


@router.post("/containers/{ref}/kill")
async def kill(call: Asked, ref: str, signal: Text = "") -> Response:
    await call.engine.containers.kill(ref, signal or "KILL")
    return Empty()


@router.post("/containers/{ref}/pause")
async def pause(call: Asked, ref: str) -> Response:
    await call.engine.containers.pause(ref)
    return Empty()


@router.post("/containers/{ref}/unpause")
async def unpause(call: Asked, ref: str) -> Response:
    await call.engine.containers.unpause(ref)
    return Empty()


@router.post("/containers/{ref}/rename")
async def rename(call: Asked, ref: str, name: Text = "") -> Response:
    await call.engine.containers.rename(ref, name)
    return Empty()


@router.post("/containers/{ref}/resize")
async def resize(call: Asked, ref: str, h: Integer = None, w: Integer = None) -> Response:
    await call.engine.containers.resize(ref, *size_of(h, w))
    return Empty(200)


def size_of(rows: int | None, columns: int | None) -> tuple[int, int]:
    """A terminal's size. Errors: InvalidArgument when one of the two is missing or cannot be."""
    for value in (rows, columns):
        if value is None:
            raise InvalidArgument('strconv.Atoi: parsing "": invalid syntax')
        if not 0 <= value <= 0xFFFF:
            raise InvalidArgument(f"a terminal cannot have {value} rows or columns")
    return rows or 0, columns or 0


@router.get("/containers/{ref}/top")
async def top(call: Asked, ref: str, ps_args: Text = "") -> Response:
    found = await call.engine.containers.top(ref, ps_args)
    return Json({"Processes": found.processes, "Titles": found.titles})


@router.post("/containers/{ref}/update")
async def update(call: Asked, ref: str) -> Response:
    warnings = await call.engine.containers.update(ref, await call.body(UpdateRequest))
    return Json({"Warnings": warnings or None})


@router.delete("/containers/{owner}/{alias}")
async def remove_link(call: Asked, owner: str, alias: str, link: Flag = False) -> Response:
    """`docker rm --link OWNER/ALIAS`."""
    await call.engine.containers.remove(f"{owner}/{alias}", force=False, volumes=False, link=link)
    return Empty()


@router.delete("/containers/{ref}")
async def remove(call: Asked, ref: str, force: Flag = False, v: Flag = False, link: Flag = False) -> Response:
    await call.engine.containers.remove(ref, force=force, volumes=v, link=link)
    return Empty()


@router.post("/containers/prune")
async def prune(call: Asked, filters: Filters) -> Response:
    pruned = await call.engine.containers.prune(filters)
    return Json({"ContainersDeleted": pruned.deleted or None, "SpaceReclaimed": pruned.space})
