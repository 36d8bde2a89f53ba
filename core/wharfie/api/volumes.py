"""Resource: volumes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from wharfie.api import versions
from wharfie.api.call import Asked
from wharfie.api.query import Filters, Flag, Text
from wharfie.api.responses import Empty, Json
from wharfie.api.streams import Stream
from wharfie.api.views.volume import volume_view
from wharfie.engine.model.base import Model
from wharfie.engine.swarm import NOT_A_MANAGER
from wharfie.spi.errors import Unavailable

router = APIRouter()


class VolumeCreate(Model):
    """Body of `POST /volumes/create`."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    cluster_volume_spec: dict[str, Any] | None = None


@router.get("/volumes")
async def list_volumes(call: Asked, filters: Filters) -> Response:
    found, warnings = await call.engine.volumes.matching(filters)
    return Json({"Volumes": [volume_view(volume) for volume in found], "Warnings": warnings or None})


@router.get("/volumes/{name}")
async def inspect(call: Asked, name: str) -> Response:
    return Json(volume_view(await call.engine.volumes.get(name)))


@router.post("/volumes/create")
async def create(call: Asked) -> Response:
    asked = await call.body(VolumeCreate)
    if asked.cluster_volume_spec is not None:
        raise Unavailable(NOT_A_MANAGER)
    volume = await call.engine.volumes.create(asked.name, asked.driver, asked.driver_opts or {}, asked.labels)
    return Json(volume_view(volume), 201)


@router.delete("/volumes/{name}")
async def remove(call: Asked, name: str, force: Flag = False) -> Response:
    await call.engine.volumes.remove(name, force)
    return Empty()


@router.get("/wharfie/volumes/{name}/archive")
async def export(call: Asked, name: str, pause: Flag = True) -> Response:
    """Ours: Docker has only a recipe with a container for it."""
    return Stream(await call.engine.backup.export(name, pause=pause), "application/x-tar")


@router.put("/wharfie/volumes/{name}/archive")
async def import_(call: Asked, name: str, driver: Text = "") -> Response:
    return Json(volume_view(await call.engine.backup.import_(name, driver, call.request.stream())), 201)


@router.post("/volumes/prune")
async def prune(call: Asked, filters: Filters) -> Response:
    if call.version < versions.ANONYMOUS_PRUNE and "all" not in filters:
        filters = {**filters, "all": ["true"]}
    pruned = await call.engine.volumes.prune(filters)
    return Json({"VolumesDeleted": pruned.deleted, "SpaceReclaimed": pruned.space})
