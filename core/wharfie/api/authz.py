"""Authorization: each driver that daemon.json names is asked in order, before the handler runs, about the parsed request.

No answer is a refusal: a driver that is missing, broken or late denies. Drivers that want to judge answers too are asked
again before an answer is sent; a stream is judged by its head, before its first byte.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastapi import Request
from pydantic_core import to_json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wharfie.api import body, versions
from wharfie.api.errors import as_answer
from wharfie.api.hijack import connection
from wharfie.api.responses import message
from wharfie.spi.authz import ApiRequest, ApiResponse, AuthzCapability, AuthzDriver, Decision
from wharfie.spi.errors import Forbidden, WharfieError

if TYPE_CHECKING:
    from wharfie.plugins.drivers import Drivers
    from wharfie.plugins.supervisor import Supervised

ANSWER_LIMIT = 16 * 1024 * 1024
"""Bytes of an answer that are kept for being judged; a longer one is refused."""
_JUDGES = "judges"


@dataclass(slots=True)
class _Judges:
    """Who judges the answer to a request."""

    asked: ApiRequest
    drivers: list[tuple[str, Supervised[AuthzDriver]]] = field(default_factory=list)


def authorizer(drivers: Drivers, names: Sequence[str]) -> Callable[[Request], Awaitable[None]]:
    """A dependency of all routes that asks the drivers `names`. It raises Forbidden with the driver and its reason."""

    async def authorize(request: Request) -> None:
        judges = _Judges(await _api_request(request))
        for name in names:
            try:
                driver = await drivers.get(AuthzDriver, name)
                decision = await driver.call(AuthzDriver.request, judges.asked)
            except WharfieError as error:
                raise _denied(name, as_answer(error)[1]) from error
            _obey(name, decision)
            if AuthzCapability.RESPONSES in driver.capabilities:
                judges.drivers.append((name, driver))
        if judges.drivers:
            request.scope["state"][_JUDGES] = judges

    return authorize


class JudgedAnswers:
    """Holds an answer back until its judges have allowed it. Pure ASGI, around the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, _Held(scope, receive, send).send)


class _Held:
    """One answer on its way out."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._start: Message | None = None
        self._body = bytearray()
        self._refused = False

    async def send(self, item: Message) -> None:
        judges: _Judges | None = self._scope["state"].get(_JUDGES)
        if judges is None:
            await self._send(item)
        elif item["type"] == "http.response.start":
            if any(name == b"content-length" for name, _ in item["headers"]):
                self._start = item
            elif await self._allowed(judges, item):
                await self._send(item)
        elif self._start is not None:
            await self._hold(judges, self._start, item)
        elif not self._refused:
            await self._send(item)

    async def _hold(self, judges: _Judges, start: Message, item: Message) -> None:
        self._body += item.get("body", b"")
        if len(self._body) > ANSWER_LIMIT:
            self._start = None
            await self._refuse(Forbidden(f"the answer is larger than {ANSWER_LIMIT} bytes and cannot be judged"))
        elif not item.get("more_body", False):
            self._start = None
            if await self._allowed(judges, start):
                await self._send(start)
                await self._send({"type": "http.response.body", "body": bytes(self._body)})
            self._refused = True  # whatever else comes, the answer is complete

    async def _allowed(self, judges: _Judges, start: Message) -> bool:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
        answer = ApiResponse(status=start["status"], headers=headers, body=bytes(self._body))
        for name, driver in judges.drivers:
            try:
                _obey(name, await driver.call(AuthzDriver.response, judges.asked, answer))
            except Forbidden as error:
                await self._refuse(error)
                return False
            except WharfieError as error:
                await self._refuse(_denied(name, as_answer(error)[1]))
                return False
        return True

    async def _refuse(self, error: Forbidden) -> None:
        self._refused = True
        await message(error.message, 403)(self._scope, self._receive, self._send)


def _obey(name: str, decision: Decision) -> None:
    if decision.allow is not True:
        raise _denied(name, decision.reason)


def _denied(name: str, reason: str) -> Forbidden:
    return Forbidden(f"authorization denied by plugin {name}: {reason}")


async def _api_request(request: Request) -> ApiRequest:
    peer = connection(request).peer()
    document = await body.document(request) if _is_json(request) else None
    return ApiRequest(
        user=peer.user,
        authentication=peer.authentication,
        groups=peer.groups,
        method=request.method,
        path=request.scope["path"],
        version=versions.text(request.scope["state"]["version"]),
        parameters=_parameters(request),
        body=document,
        raw_body=b"" if document is None else to_json(document),
        peer_certificates=peer.certificates,
    )


def _is_json(request: Request) -> bool:
    """Other bodies (archives) are streams; a handler that wants JSON refuses them by their type."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


def _parameters(request: Request) -> dict[str, str]:
    """A parameter that is given several times is shown with all its values, one a line."""
    query = request.query_params
    return {name: "\n".join(query.getlist(name)) for name in query}
