"""What every request passes first: its version is split off, its answer gets the API's headers, errors become answers.

Pure ASGI: nothing is buffered on the way.
"""

from __future__ import annotations

import ipaddress
import itertools
import logging
import socket
import time
from contextvars import ContextVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wharfie.api import versions
from wharfie.api.errors import PageNotFound, as_answer
from wharfie.api.protocol import HIJACK
from wharfie.api.responses import message
from wharfie.plugins.inventory import core_version
from wharfie.spi.errors import Forbidden, InvalidArgument

REQUEST_ID: ContextVar[str] = ContextVar("wharfie_request", default="")
"""The id of the request in whose name this task runs; the daemon's log shows it."""

log = logging.getLogger("wharfie.api")

PRODUCT = f"Wharfie/{core_version()} (linux)"

_LOCAL_NAMES = frozenset({"localhost", "docker", socket.gethostname().lower()})


def common_headers(experimental: bool) -> list[tuple[bytes, bytes]]:
    """The headers that all answers of the API carry."""
    return [
        (b"api-version", versions.text(versions.NEWEST).encode()),
        (b"docker-experimental", b"true" if experimental else b"false"),
        (b"ostype", b"linux"),
        (b"server", PRODUCT.encode()),
    ]


class Front:
    """The outermost application."""

    def __init__(self, app: ASGIApp, *, experimental: bool) -> None:
        self._app = app
        self._headers = common_headers(experimental)
        self._ids = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        began = time.perf_counter()
        status = 0

        async def answer(item: Message) -> None:
            nonlocal status
            if item["type"] == "http.response.start":
                status = item["status"]
                if not scope["state"].get("bare"):
                    item["headers"] = [*item["headers"], *self._headers]
            await send(item)

        request = f"{next(self._ids):x}"
        token = REQUEST_ID.set(request)
        scope["state"]["id"] = request
        asked = scope["path"]
        try:
            self._admit(scope)
            await self._app(scope, receive, answer)
        except Exception as error:  # the last place where an error can still become an answer
            code, text = as_answer(error)
            if code >= 500 or status:
                log.exception("%s %s", scope["method"], asked)
            if not status:
                scope["state"]["bare"] = isinstance(error, PageNotFound)
                await message(text, code)(scope, receive, answer)
        finally:
            REQUEST_ID.reset(token)
            if log.isEnabledFor(logging.DEBUG):
                milliseconds = (time.perf_counter() - began) * 1000
                log.debug("%s %s %s: %s in %.1f ms", request, scope["method"], asked, status or "taken over", milliseconds)

    def _admit(self, scope: Scope) -> None:
        if scope["server"] and scope["server"][1] is not None and scope["scheme"] == "http":
            _check_host(scope)
        version, path = versions.split(scope["path"])
        scope["state"]["version"] = version
        scope["path"] = path
        scope.pop("raw_path", None)


def _check_host(scope: Scope) -> None:
    """A web page whose name was made to point here must not reach an open TCP port (DNS rebinding).

    TLS knows its clients and a page cannot open a unix socket; plain TCP is left. A browser says the page's name in Host.
    """
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    host = hosts[0].decode("latin-1").lower() if hosts else ""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if len(hosts) > 1:
        raise InvalidArgument("too many Host headers")
    if not name or name in _LOCAL_NAMES or name.partition(".")[0] in _LOCAL_NAMES:
        return
    try:
        ipaddress.ip_address(name)
    except ValueError:
        raise Forbidden(
            f'"{name}" is not a name of this host: reach the API by an address or by TLS (--tlsverify)'
        ) from None


__all__ = ["HIJACK", "REQUEST_ID", "Front", "common_headers"]
