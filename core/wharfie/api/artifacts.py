"""Resource: artifacts at registries (ours)."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from wharfie.api.call import Asked
from wharfie.api.credentials import RegistryAuth
from wharfie.api.query import Flag, Text
from wharfie.api.responses import Json
from wharfie.api.streams import Stream, begun, progress_response
from wharfie.engine.images.artifacts import ArtifactRequest
from wharfie.engine.images.progress import Progress
from wharfie.spi.errors import InvalidArgument
from wharfie.spi.registry import Descriptor

router = APIRouter()


@router.post("/wharfie/artifacts")
async def push(
    call: Asked,
    auth: RegistryAuth,
    name: Text = "",
    artifact_type: Annotated[str, Query(alias="artifact-type")] = "",
    annotations: Text = "",
    media_types: Annotated[str, Query(alias="media-types")] = "",
    folders: Text = "",
    attach: Flag = False,
) -> Response:
    """The body is a tar of the files; of a folder, of its compressed tar."""
    request = ArtifactRequest(
        artifact_type=artifact_type,
        annotations=_texts(annotations, "annotations"),
        media_types=_texts(media_types, "media-types"),
        folders=_texts(folders, "folders"),
        attach=attach,
    )
    body = call.request.stream()
    artifacts = call.engine.images.artifacts

    async def work(progress: Progress) -> None:
        progress({"aux": _view(await artifacts.push(name, body, request, auth, progress))})

    return await progress_response(call.request, work)


@router.get("/wharfie/artifacts")
async def list_referrers(
    call: Asked,
    auth: RegistryAuth,
    name: Text = "",
    artifact_type: Annotated[str, Query(alias="artifact-type")] = "",
) -> Response:
    """What refers to the image or artifact of this name."""
    return Json([_view(each) for each in await call.engine.images.artifacts.referrers(name, artifact_type, auth)])


@router.get("/wharfie/artifacts/files")
async def pull(call: Asked, auth: RegistryAuth, name: Text = "") -> Response:
    """A tar of the files and folders."""
    digest, pieces = await call.engine.images.artifacts.pull(name, auth)
    return Stream(await begun(pieces), "application/x-tar", {"Docker-Content-Digest": digest})


def _texts(text: str, parameter: str) -> dict[str, str]:
    try:
        document = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{parameter}: not valid JSON: {error}") from None
    if not isinstance(document, dict) or not all(isinstance(value, str) for value in document.values()):
        raise InvalidArgument(f"{parameter}: want an object of texts")
    return document


def _view(descriptor: Descriptor) -> dict[str, Any]:
    return {
        "Digest": descriptor.digest,
        "MediaType": descriptor.media_type,
        "ArtifactType": descriptor.artifact_type,
        "Size": descriptor.size,
        "Annotations": dict(descriptor.annotations),
    }
