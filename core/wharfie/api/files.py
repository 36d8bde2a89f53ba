"""Resource: the files of containers. Copying in and out, export, changes."""

from __future__ import annotations

import base64
import stat
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic_core import to_json
from starlette.responses import Response

from wharfie.api.call import Asked
from wharfie.api.query import Flag, Text
from wharfie.api.responses import Empty, Json
from wharfie.api.streams import Stream, timestamp
from wharfie.engine.files.copying import PathStat
from wharfie.spi.errors import InvalidArgument

router = APIRouter()

STAT_HEADER = "X-Docker-Container-Path-Stat"

# Go's io/fs FileMode: its own bits above the nine of permission.
_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
}
_FLAGS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}

NoOverwrite = Annotated[Flag, Query(alias="noOverwriteDirNonDir")]
CopyOwner = Annotated[Flag, Query(alias="copyUIDGID")]


def go_mode(mode: int) -> int:
    """st_mode as Go's FileMode."""
    bits = sum(go for unix, go in _FLAGS.items() if mode & unix)
    return mode & 0o777 | _KINDS.get(stat.S_IFMT(mode), 0) | bits


def stat_header(found: PathStat) -> dict[str, str]:
    document = {
        "name": found.name,
        "size": found.size,
        "mode": go_mode(found.mode),
        "mtime": timestamp(found.mtime_ns),
        "linkTarget": found.link_target,
    }
    return {STAT_HEADER: base64.b64encode(to_json(document)).decode()}


def _check(path: str) -> str:
    if not path:
        raise InvalidArgument("bad parameter: pathcannot be empty")
    if "\0" in path:
        raise InvalidArgument("bad parameter: path cannot have a zero byte")
    return path


@router.head("/containers/{ref}/archive")
async def look(call: Asked, ref: str, path: Text = "") -> Response:
    return Empty(200, stat_header(await call.engine.copying.stat(ref, _check(path))))


@router.get("/containers/{ref}/archive")
async def read(call: Asked, ref: str, path: Text = "") -> Response:
    found, pieces = await call.engine.copying.read(ref, _check(path))
    return Stream(pieces, "application/x-tar", stat_header(found))


@router.put("/containers/{ref}/archive")
async def write(
    call: Asked, ref: str, path: Text = "", no_overwrite: NoOverwrite = False, copy_owner: CopyOwner = False
) -> Response:
    await call.engine.copying.write(
        ref, _check(path), call.request.stream(), keep_kinds=no_overwrite, container_owner=copy_owner
    )
    return Empty(200)


@router.get("/containers/{ref}/export")
async def export(call: Asked, ref: str) -> Response:
    return Stream(await call.engine.copying.export(ref), "application/octet-stream")


@router.get("/containers/{ref}/changes")
async def changes(call: Asked, ref: str) -> Response:
    found = await call.engine.copying.changes(ref)
    return Json([{"Path": change.path, "Kind": int(change.kind)} for change in found] or None)
