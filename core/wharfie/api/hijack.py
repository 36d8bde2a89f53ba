"""Taking a connection over: the heads that Docker's clients expect before a raw stream."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from wharfie.api import versions
from wharfie.api.protocol import HIJACK, Connection
from wharfie.api.versions import Version

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"


class TakenOver(Response):
    """What a handler returns whose connection belongs to somebody else now: there is nothing to answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        return


def connection(request: Request) -> Connection:
    """The connection of a request."""
    found: Connection = request.scope["extensions"][HIJACK]
    return found


def upgrade_of(request: Request) -> str:
    """The protocol that the client asks to change to; empty without `Connection: Upgrade`."""
    tokens = [token.strip() for token in request.headers.get("connection", "").lower().split(",")]
    return request.headers.get("upgrade", "") if "upgrade" in tokens else ""


def content_type(version: Version, *, framed: bool) -> str:
    """Of a stream of output. Frames have a type of their own since 1.42."""
    return MULTIPLEXED if framed and version >= versions.MULTIPLEXED else RAW


def stream_head(request: Request, common: Iterable[tuple[bytes, bytes]], version: Version, *, framed: bool) -> bytes:
    """The answer before a raw stream: 101 when the client asked to upgrade, otherwise 200 and always the raw type."""
    upgrade = upgrade_of(request)
    lines = (
        [
            b"HTTP/1.1 101 UPGRADED",
            b"Content-Type: " + content_type(version, framed=framed).encode(),
            b"Connection: Upgrade",
            b"Upgrade: " + upgrade.encode("latin-1"),
        ]
        if upgrade
        else [b"HTTP/1.1 200 OK", b"Content-Type: " + RAW.encode()]
    )
    return _head(lines, common)


def wait_head(common: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The answer to a wait, sent at once. Its body comes later and ends with the connection."""
    return _head([b"HTTP/1.1 200 OK", b"Content-Type: application/json", b"Connection: close"], common)


def _head(lines: list[bytes], common: Iterable[tuple[bytes, bytes]]) -> bytes:
    lines += [name.title() + b": " + value for name, value in common]
    return b"\r\n".join([*lines, b"", b""])


async def take_stream(
    request: Request, common: Iterable[tuple[bytes, bytes]], version: Version, *, framed: bool
) -> tuple[socket.socket, bytes]:
    """Take the connection of an attach or exec request over. Errors: Cancelled."""
    return await connection(request).take(stream_head(request, common, version, framed=framed))
