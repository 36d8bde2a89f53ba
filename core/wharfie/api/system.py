"""Resource: the engine itself. `version`, `info`, `system/df`, `auth`."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from wharfie.api.call import Asked
from wharfie.api.credentials import AuthConfig
from wharfie.api.query import Texts
from wharfie.api.responses import Empty, Json
from wharfie.api.views.info import info_view
from wharfie.api.views.usage import usage_view
from wharfie.spi.errors import InvalidArgument

router = APIRouter()

_USAGE_TYPES = frozenset({"container", "image", "volume", "build-cache"})


@router.get("/version")
async def version(call: Asked) -> Response:
    return Json(call.engine.system.version())


@router.get("/info")
async def info(call: Asked) -> Response:
    return Json(info_view(await call.engine.system.info(), call.version))


@router.get("/system/df")
async def disk_usage(call: Asked, type: Texts = []) -> Response:  # noqa: B006  # FastAPI copies defaults
    wanted = frozenset(type) or _USAGE_TYPES
    for unknown in sorted(wanted - _USAGE_TYPES):
        raise InvalidArgument(f"unknown object type: {unknown}")
    return Json(usage_view(call.engine, await call.engine.system.disk_usage(wanted), wanted, call.version))


@router.post("/auth")
async def login(call: Asked) -> Response:
    config = await call.body(AuthConfig)
    result = await call.engine.images.login(config.model_dump(by_alias=True))
    if not result.status:
        return Empty(204)
    return Json({"IdentityToken": result.identity_token, "Status": result.status})
