"""Resource: networks."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from wharfie.api.call import Asked
from wharfie.api.query import Filters
from wharfie.api.responses import Empty, Json
from wharfie.api.views.network import network_view
from wharfie.engine.model.base import Model
from wharfie.engine.model.network import EndpointSettings, NetworkCreate

router = APIRouter()


class Connect(Model):
    """Body of `POST /networks/{id}/connect`."""

    container: str = ""
    endpoint_config: EndpointSettings | None = None


class Disconnect(Model):
    """Body of `POST /networks/{id}/disconnect`."""

    container: str = ""
    force: bool = False


@router.get("/networks")
@router.get("/networks/")
async def list_networks(call: Asked, filters: Filters) -> Response:
    return Json([network_view(network, (), call.version) for network in call.engine.networks.matching(filters)])


@router.get("/networks/{ref}")
async def inspect(call: Asked, ref: str) -> Response:
    networks = call.engine.networks
    network = networks.get(ref)
    return Json(network_view(network, networks.endpoints(network.id), call.version))


@router.post("/networks/create")
async def create(call: Asked) -> Response:
    network, warning = await call.engine.networks.create(await call.body(NetworkCreate))
    return Json({"Id": network, "Warning": warning}, 201)


@router.delete("/networks/{ref}")
async def remove(call: Asked, ref: str) -> Response:
    await call.engine.networks.remove(ref)
    return Empty()


@router.post("/networks/prune")
async def prune(call: Asked, filters: Filters) -> Response:
    return Json({"NetworksDeleted": await call.engine.networks.prune(filters) or None})


@router.post("/networks/{ref}/connect")
async def connect(call: Asked, ref: str) -> Response:
    asked = await call.body(Connect)
    await call.engine.connecting.connect(ref, asked.container, asked.endpoint_config or EndpointSettings())
    return Empty(200)


@router.post("/networks/{ref}/disconnect")
async def disconnect(call: Asked, ref: str) -> Response:
    asked = await call.body(Disconnect)
    await call.engine.connecting.disconnect(ref, asked.container, asked.force)
    return Empty(200)
