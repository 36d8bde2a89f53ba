"""Resource: drivers and hook plugins (ours), and Docker's managed plugins, of which this engine has none."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from wharfie.api.call import Asked
from wharfie.api.responses import Json
from wharfie.spi.errors import NotFound

router = APIRouter()


@router.get("/wharfie/plugins")
async def list_drivers(call: Asked) -> Response:
    """What `wharfie plugin ls` shows."""
    return Json(
        [
            {
                "Kind": row.kind,
                "Name": row.name,
                "Distribution": row.distribution,
                "Version": row.version,
                "State": row.state.value,
                "Cause": row.cause,
                "Remedy": row.remedy,
            }
            for row in call.engine.drivers.states()
        ]
    )


@router.get("/plugins")
async def list_managed() -> Response:
    return Json([])


@router.get("/plugins/{name:path}/json")
async def inspect_managed(name: str) -> Response:
    raise NotFound(f'plugin "{name}" not found')
