"""Resource: the content store (ours)."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from wharfie.api.call import Asked
from wharfie.api.credentials import RegistryAuth
from wharfie.api.responses import Json
from wharfie.api.streams import progress_response
from wharfie.engine.images.progress import Progress
from wharfie.engine.images.upkeep import Blob, Findings

router = APIRouter()


@router.get("/wharfie/content")
async def list_blobs(call: Asked) -> Response:
    """What `wharfie content ls` shows."""
    return Json([_view(blob) for blob in await call.engine.images.blobs()])


@router.post("/wharfie/content/verify")
async def verify(call: Asked) -> Response:
    """Messages for each damaged blob, then what was found."""
    images = call.engine.images

    async def work(progress: Progress) -> None:
        _tell(await images.verify(progress), progress)

    return await progress_response(call.request, work, always_in_band=True)


@router.post("/wharfie/content/repair")
async def repair(call: Asked, auth: RegistryAuth) -> Response:
    """The same, and what became of each."""
    images = call.engine.images

    async def work(progress: Progress) -> None:
        _tell(await images.repair(auth, progress), progress)

    return await progress_response(call.request, work, always_in_band=True)


def _tell(found: Findings, progress: Progress) -> None:
    damaged = [_view(blob) | {"Fault": why, "Repaired": blob.digest in found.repaired} for blob, why in found.damaged]
    progress({"aux": {"Blobs": found.blobs, "Bytes": found.bytes, "Damaged": damaged}})


def _view(blob: Blob) -> dict[str, Any]:
    names = [name for image in blob.images for name in (image.repo_tags or [image.id])]
    return {"Digest": blob.digest, "Kind": blob.kind, "Size": blob.size, "Images": names}
