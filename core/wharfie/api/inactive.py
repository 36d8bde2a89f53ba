"""Endpoints of what is not active in this engine: they answer what Docker answers where it is inactive too."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from wharfie.api.errors import PageNotFound
from wharfie.api.hijack import upgrade_of
from wharfie.api.responses import Empty, Json, message
from wharfie.engine.swarm import NOT_A_MANAGER

router = APIRouter()

_NO_UPGRADE = "no upgrade proto in request"
_NO_BUILDER = "this engine does not build images: build with buildah, podman or kaniko, and load or pull the result"
_NO_CLUSTER = "this engine is not part of any cluster: swarm mode is not supported"

_SWARM: tuple[tuple[str, str], ...] = (
    *(("GET", path) for path in ("/swarm", "/swarm/unlockkey", "/nodes", "/services", "/tasks", "/secrets", "/configs")),
    *(("GET", f"/{kind}/{{ref}}") for kind in ("nodes", "services", "tasks", "secrets", "configs")),
    *(("GET", f"/{kind}/{{ref}}/logs") for kind in ("services", "tasks")),
    *(("POST", f"/{kind}/create") for kind in ("services", "secrets", "configs")),
    *(("POST", f"/{kind}/{{ref}}/update") for kind in ("nodes", "services", "secrets", "configs")),
    *(("DELETE", f"/{kind}/{{ref}}") for kind in ("nodes", "services", "secrets", "configs")),
    *(("POST", f"/swarm/{action}") for action in ("leave", "update", "unlock")),
)


async def _no_swarm() -> Response:
    return message(NOT_A_MANAGER, 503)


@router.post("/build/prune")
async def prune_builds() -> Response:
    """Part of `docker system prune`. There is no builder, hence no cache."""
    return Json({"CachesDeleted": None, "SpaceReclaimed": 0})


@router.post("/build")
@router.post("/build/cancel")
async def build() -> Response:
    return message(_NO_BUILDER, 501)


@router.post("/swarm/init")
@router.post("/swarm/join")
async def join_cluster() -> Response:
    return message(_NO_CLUSTER, 501)


@router.options("/{path:path}")
async def options(path: str) -> Response:
    """Docker answers any path; no header allows a web page anything."""
    return Empty(200)


@router.post("/session")
async def session(request: Request) -> Response:
    return _upgrade_needed(request, 400)


@router.post("/grpc")
async def grpc(request: Request) -> Response:
    return _upgrade_needed(request, 500)


def _upgrade_needed(request: Request, status: int) -> Response:
    """BuildKit's connections begin with an upgrade; there is nobody to speak it with until a builder is there."""
    if upgrade_of(request):
        raise PageNotFound
    return message(_NO_UPGRADE, status)


for _method, _path in _SWARM:
    router.add_api_route(_path, _no_swarm, methods=[_method])
