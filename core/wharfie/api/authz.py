"""Authorization: each driver that daemon.json names is asked in order, before the handler runs, about the parsed request.

No answer is a refusal: a driver that is missing, broken or late denies.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from fastapi import Request
from pydantic_core import to_json

from wharfie.api import body
from wharfie.api.errors import as_answer
from wharfie.api.hijack import connection
from wharfie.spi.authz import ApiRequest, AuthzCapability, AuthzDriver
from wharfie.spi.errors import Forbidden, WharfieError

if TYPE_CHECKING:
    from wharfie.plugins.drivers import Drivers


def authorizer(drivers: Drivers, names: Sequence[str]) -> Callable[[Request], Awaitable[None]]:
    """A dependency of all routes that asks the drivers `names`. It raises Forbidden with the driver and its reason."""

    async def authorize(request: Request) -> None:
        asked = await _api_request(request)
        for name in names:
            try:
                driver = await drivers.get(AuthzDriver, name)
                if AuthzCapability.RESPONSES in driver.capabilities:
                    raise Forbidden("it wants to judge answers too, which this engine cannot have it do yet")
                decision = await driver.call(AuthzDriver.request, asked)
            except WharfieError as error:
                raise Forbidden(f"authorization denied by plugin {name}: {as_answer(error)[1]}") from error
            if decision.allow is not True:
                raise Forbidden(f"authorization denied by plugin {name}: {decision.reason}")

    return authorize


async def _api_request(request: Request) -> ApiRequest:
    peer = connection(request).peer()
    document = await body.document(request) if _is_json(request) else None
    return ApiRequest(
        user=peer.user,
        authentication=peer.authentication,
        groups=peer.groups,
        method=request.method,
        path=request.scope["path"],
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
