"""Resource: checkpoints of containers, which a daemon has when `experimental` is set."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from wharfie.api.call import Asked
from wharfie.api.query import Text
from wharfie.api.responses import Empty, Json
from wharfie.engine.model.container import CheckpointCreate
from wharfie.spi.errors import Unsupported

_NO_EXPERIMENT = (
    "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to enable it."
)


async def _experimental(request: Request) -> None:
    """Errors: Unsupported, before the container is looked for."""
    if not request.app.state.engine.settings.experimental:
        raise Unsupported(_NO_EXPERIMENT)


router = APIRouter(dependencies=[Depends(_experimental)])


@router.get("/containers/{ref}/checkpoints")
async def list_checkpoints(call: Asked, ref: str, dir: Text = "") -> Response:
    names = await call.engine.containers.checkpoints.names(ref, dir)
    return Json([{"Name": name} for name in names] or None)


@router.post("/containers/{ref}/checkpoints")
async def create(call: Asked, ref: str) -> Response:
    await call.engine.containers.checkpoints.create(ref, await call.body(CheckpointCreate))
    return Empty(201)


@router.delete("/containers/{ref}/checkpoints/{checkpoint}")
async def remove(call: Asked, ref: str, checkpoint: str, dir: Text = "") -> Response:
    await call.engine.containers.checkpoints.remove(ref, checkpoint, dir)
    return Empty()
