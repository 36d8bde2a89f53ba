"""The engine as a registry to be pulled from: the read half of the OCI distribution protocol, over the content store.

It is an application of its own, on an address of its own: nothing of the API can be reached by it. Pure ASGI.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

from starlette.types import Receive, Scope, Send

from wharfie.engine import digits
from wharfie.spi.errors import InvalidArgument, NotFound, WharfieError

if TYPE_CHECKING:
    from wharfie.engine.images.mirror import Mirror, Served
    from wharfie.spi.registry import Descriptor

log = logging.getLogger("wharfie.mirror")

_PATH = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs|tags|referrers)/(?P<last>[^/]+)")
_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)
"""Positions that no file reaches have more digits; such a range is none."""
_CHUNK = 1 << 20
_PAGE = 1000
_INDEX = "application/vnd.oci.image.index.v1+json"
_VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}


class MirrorApp:
    """The application. Errors become the protocol's error documents."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        answer = _Answer(scope, send)
        try:
            await self._serve(scope, answer)
        except NotFound as error:
            code = error.message.partition(":")[0].replace(" ", "_").upper()
            await answer.error(404, code if code in ("MANIFEST_UNKNOWN", "BLOB_UNKNOWN") else "NAME_UNKNOWN", error.message)
        except InvalidArgument as error:
            await answer.error(400, "UNSUPPORTED", error.message)
        except WharfieError as error:
            log.error("mirror: %s %s: %s", scope["method"], scope["path"], error.message)
            await answer.error(500, "UNKNOWN", error.message)
        log.debug("mirror: %s %s: %s", scope["method"], scope["path"], answer.status)

    async def _serve(self, scope: Scope, answer: _Answer) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            text = "this is a read-only mirror: push to the registry itself"
            await answer.error(405, "UNSUPPORTED", text, {"Allow": "GET, HEAD"})
            return
        query = {key: values[0] for key, values in parse_qs(scope["query_string"].decode("latin-1")).items()}
        path = scope["path"]
        if path in ("/v2/", "/v2"):
            await answer.document({})
        elif path == "/v2/_catalog":
            await answer.page("repositories", await self._mirror.repositories(), query, {})
        elif (found := _PATH.fullmatch(path)) is not None:
            name = f"{query['ns']}/{found['name']}" if query.get("ns") else found["name"]
            handlers: Mapping[str, Callable[..., Awaitable[None]]] = {
                "manifests": self._manifest,
                "blobs": self._blob,
                "tags": self._tags,
                "referrers": self._referrers,
            }
            await handlers[found["kind"]](name, found["last"], query, answer)
        else:
            await answer.error(404, "NAME_UNKNOWN", f"there is no {path} here")

    async def _manifest(self, name: str, last: str, query: Mapping[str, str], answer: _Answer) -> None:
        found = await self._mirror.manifest(name, last, answer.accepted())
        headers = {"Content-Type": found.media_type, "Docker-Content-Digest": found.digest, "ETag": f'"{found.digest}"'}
        await answer.whole(200, found.data, headers)

    async def _blob(self, name: str, last: str, query: Mapping[str, str], answer: _Answer) -> None:
        await answer.file(await self._mirror.blob(name, last), last)

    async def _tags(self, name: str, last: str, query: Mapping[str, str], answer: _Answer) -> None:
        if last != "list":
            raise NotFound(f"there is no tags/{last}")
        await answer.page("tags", await self._mirror.tags(name), query, {"name": name})

    async def _referrers(self, name: str, last: str, query: Mapping[str, str], answer: _Answer) -> None:
        wanted = query.get("artifactType", "")
        found = [each for each in await self._mirror.referrers(name, last) if wanted in ("", each.artifact_type)]
        document = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [_row(each) for each in found]}
        headers = {"Content-Type": _INDEX} | ({"OCI-Filters-Applied": "artifactType"} if wanted else {})
        await answer.whole(200, json.dumps(document).encode(), headers)


class _Answer:
    """How one request is answered."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self.status = 0

    def _header(self, name: bytes) -> str:
        return ",".join(value.decode("latin-1") for key, value in self._scope["headers"] if key == name)

    def accepted(self) -> frozenset[str]:
        """Media types that the client names; empty when it takes anything."""
        kinds = {part.partition(";")[0].strip() for part in self._header(b"accept").split(",")} - {""}
        return frozenset() if "*/*" in kinds else frozenset(kinds)

    async def whole(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        await self._begin(status, len(data), headers)
        await self._send({"type": "http.response.body", "body": b"" if self._scope["method"] == "HEAD" else data})

    async def document(self, content: Any, headers: Mapping[str, str] | None = None, status: int = 200) -> None:
        await self.whole(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    async def error(self, status: int, code: str, text: str, headers: Mapping[str, str] | None = None) -> None:
        """An error document (distribution-spec, "Error Codes")."""
        if not self.status:
            await self.document({"errors": [{"code": code, "message": text, "detail": None}]}, headers, status)

    async def page(self, key: str, items: Sequence[str], query: Mapping[str, str], more: Mapping[str, Any]) -> None:
        """A part of a sorted list: at most `n`, after `last`."""
        text = query.get("n", str(_PAGE))
        wanted = digits.number(text)
        if wanted is None:
            raise InvalidArgument(f"n={text[:40]} is not a number of at most {digits.LENGTH} digits")
        rest = [item for item in items if item > query.get("last", "")]
        shown = rest[: min(wanted, _PAGE)]
        headers = {}
        if shown and len(shown) < len(rest):
            path = quote(self._scope["path"], safe="/:")
            headers["Link"] = f'<{path}?n={len(shown)}&last={quote(shown[-1], safe="")}>; rel="next"'
        await self.document({**more, key: shown}, headers)

    async def file(self, blob: Served, digest: str) -> None:
        """A blob, or the part that `Range` asks for."""
        begin, end = _part(self._header(b"range"), blob.size)
        headers = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": digest,
            "ETag": f'"{digest}"',
            "Accept-Ranges": "bytes",
        }
        if begin >= end and blob.size:
            headers["Content-Range"] = f"bytes */{blob.size}"
            await self.error(
                416, "RANGE_INVALID", f"the blob has {blob.size} bytes", headers | {"Content-Type": "application/json"}
            )
            return
        status = 200
        if end - begin < blob.size:
            status, headers["Content-Range"] = 206, f"bytes {begin}-{end - 1}/{blob.size}"
        try:
            descriptor = await asyncio.to_thread(os.open, blob.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"blob unknown: {digest} is gone") from None
        try:
            await self._begin(status, end - begin, headers)
            while begin < end and self._scope["method"] == "GET":
                piece = await asyncio.to_thread(os.pread, descriptor, min(_CHUNK, end - begin), begin)
                if not piece:
                    break  # the client sees that its body is too short
                begin += len(piece)
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        finally:
            os.close(descriptor)
        await self._send({"type": "http.response.body", "body": b""})

    async def _begin(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        self.status = status
        pairs = {**_VERSION, **headers, "Content-Length": str(length)}
        # A media type is whatever a manifest says: it must not become a header of its own.
        raw = [
            (name.lower().encode(), value.encode("latin-1", "replace"))
            for name, value in pairs.items()
            if value.isprintable()
        ]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})


def _part(header: str, size: int) -> tuple[int, int]:
    """First byte, and the one after the last, that `Range` asks for (RFC 9110, 14.2); anything else means all."""
    match = _RANGE.fullmatch(header.strip())
    if match is None or not (match[1] or match[2]):
        return 0, size
    if not match[1]:
        return max(0, size - int(match[2])), size
    last = min(int(match[2]), size - 1) if match[2] else size - 1
    begin = int(match[1])
    return (0, size) if match[2] and int(match[2]) < begin else (begin, last + 1)


def _row(descriptor: Descriptor) -> dict[str, Any]:
    return {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
        "artifactType": descriptor.artifact_type,
        "annotations": dict(descriptor.annotations),
    }
