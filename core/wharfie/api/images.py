"""Resource: images."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from wharfie.api import versions
from wharfie.api.call import Asked
from wharfie.api.credentials import RegistryAuth
from wharfie.api.fetched import fetch
from wharfie.api.query import Filters, Flag, Integer, Text, Texts
from wharfie.api.responses import Empty, Json
from wharfie.api.streams import Stream, begun, closing, progress_response
from wharfie.api.views.image import distribution_view, history_view, image_view, search_view, summary_view, target_view
from wharfie.engine.containers.commit import CommitRequest
from wharfie.engine.images.progress import Progress
from wharfie.engine.model.config import Config
from wharfie.spi.errors import InvalidArgument

router = APIRouter()


@router.get("/images/json")
async def list_images(
    call: Asked,
    filters: Filters,
    all: Flag = False,
    shared_size: Annotated[Flag, Query(alias="shared-size")] = False,
    manifests: Flag = False,
) -> Response:
    images = call.engine.images
    found = images.list(all=all, filters=filters)
    shared = images.shared_sizes(found) if shared_size else {}
    if not manifests or call.version < versions.MANIFESTS_IN_LISTS:
        return Json([summary_view(image, call.version, shared_size=shared.get(image.id, -1)) for image in found])
    return Json(
        [
            summary_view(image, call.version, shared_size=shared.get(image.id, -1))
            | target_view(await images.variants.of(image))
            for image in found
            if images.variants.is_main(image)
        ]
    )


@router.post("/images/create")
async def create(
    call: Asked,
    auth: RegistryAuth,
    from_image: Annotated[str, Query(alias="fromImage")] = "",
    from_source: Annotated[str, Query(alias="fromSrc")] = "",
    repo: Text = "",
    tag: Text = "",
    message: Text = "",
    changes: Texts = [],  # noqa: B006  # FastAPI copies defaults
    platform: Text = "",
) -> Response:
    """Pull (`fromImage`) or import (`fromSrc`)."""
    images = call.engine.images
    if from_image:
        return await progress_response(
            call.request,
            lambda progress: images.pull(from_image, tag, platform=platform, auth=auth, progress=progress),
        )
    if not from_source:
        raise InvalidArgument("one of fromImage and fromSrc is needed")

    async def work(progress: Progress) -> None:
        body: AsyncIterator[bytes] = call.request.stream()
        if from_source != "-":
            url, body = await fetch(from_source)
            progress({"status": f"Downloading from {url}"})
        async with closing(body) as pieces:
            await images.import_(
                pieces,
                repository=repo,
                tag=tag,
                message=message or f"Imported from {from_source}",
                changes=changes,
                platform=platform,
                progress=progress,
            )

    return await progress_response(call.request, work)


@router.post("/commit")
async def commit(
    call: Asked,
    container: Text = "",
    repo: Text = "",
    tag: Text = "",
    comment: Text = "",
    author: Text = "",
    pause: Flag = True,
    changes: Texts = [],  # noqa: B006  # FastAPI copies defaults
) -> Response:
    config = await call.body(Config, required=False)
    request = CommitRequest(
        container=container,
        repository=repo,
        tag=tag,
        comment=comment,
        author=author,
        pause=pause,
        changes=changes,
        config=config if config.model_fields_set else None,
    )
    return Json({"Id": await call.engine.commits.commit(request)}, 201)


@router.post("/images/load")
async def load(call: Asked, quiet: Flag = False, platform: Text = "") -> Response:
    body = call.request.stream()
    images = call.engine.images
    return await progress_response(
        call.request,
        lambda progress: images.load(
            body, quiet=quiet, progress=progress, platform=call.since(versions.PLATFORMS, platform)
        ),
        always_in_band=True,
    )


@router.get("/images/search")
async def search(call: Asked, filters: Filters, auth: RegistryAuth, term: Text = "", limit: Integer = None) -> Response:
    found = await call.engine.images.search(term, limit or 0, filters, auth)
    return Json([search_view(row) for row in found])


@router.get("/distribution/{name:path}/json")
async def distribution(call: Asked, name: str, auth: RegistryAuth) -> Response:
    return Json(distribution_view(await call.engine.images.distribution(name, auth)))


@router.get("/images/get")
async def save_several(
    call: Asked,
    names: Texts = [],  # noqa: B006  # FastAPI copies defaults
    platform: Text = "",
) -> Response:
    wanted = call.since(versions.PLATFORMS, platform)
    return Stream(await begun(await call.engine.images.save(names, wanted)), "application/x-tar")


@router.get("/images/{name:path}/get")
async def save(call: Asked, name: str, platform: Text = "") -> Response:
    wanted = call.since(versions.PLATFORMS, platform)
    return Stream(await begun(await call.engine.images.save([name], wanted)), "application/x-tar")


@router.get("/images/{name:path}/json")
async def inspect(call: Asked, name: str, platform: Text = "", manifests: Flag = False) -> Response:
    wanted = call.since(versions.PLATFORM_OF_INSPECT, platform)
    if wanted and manifests:
        raise InvalidArgument("conflicting options: manifests and platform options cannot both be set")
    image = call.engine.images.get(name, wanted)
    view = image_view(image, call.version, call.engine.system.storage_driver)
    if manifests and call.version >= versions.MANIFESTS:
        view |= target_view(await call.engine.images.variants.of(image))
    return Json(view)


@router.get("/images/{name:path}/history")
async def history(call: Asked, name: str, platform: Text = "") -> Response:
    found = call.engine.images.history(name, call.since(versions.PLATFORMS, platform))
    return Json([history_view(item) for item in found])


@router.post("/images/{name:path}/tag")
async def tag_image(call: Asked, name: str, repo: Text = "", tag: Text = "") -> Response:
    await call.engine.images.tag(name, repo, tag)
    return Empty(201)


@router.post("/images/{name:path}/push")
async def push(call: Asked, name: str, auth: RegistryAuth, tag: Text = "", platform: Text = "") -> Response:
    images = call.engine.images
    wanted = call.since(versions.PLATFORM_OF_PUSH, platform)
    return await progress_response(
        call.request, lambda progress: images.push(name, tag, auth=auth, progress=progress, platform=wanted)
    )


@router.post("/images/prune")
async def prune(call: Asked, filters: Filters) -> Response:
    deleted, space = await call.engine.images.prune(filters)
    return Json({"ImagesDeleted": deleted or None, "SpaceReclaimed": space})


@router.delete("/images/{name:path}")
async def remove(
    call: Asked,
    name: str,
    force: Flag = False,
    noprune: Flag = False,
    platforms: Texts = [],  # noqa: B006  # FastAPI copies defaults
) -> Response:
    wanted = platforms if call.version >= versions.PLATFORMS_OF_REMOVE else ()
    return Json(await call.engine.images.remove(name, force=force, prune=not noprune, platforms_only=wanted))
