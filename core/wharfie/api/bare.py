"""Routes before FastAPI's: what every command asks first, and what programs ask by the second.

They take nothing that FastAPI would have to look at, and are answered in a third of the time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from wharfie.api.filters import parse
from wharfie.api.query import flag, integer
from wharfie.api.responses import Rendered
from wharfie.api.views.container import container_text
from wharfie.api.views.summary import summary_list

if TYPE_CHECKING:
    from wharfie.engine.engine import Engine

Judge = Callable[[Request], Awaitable[None]]
"""Raises when a request is not allowed."""

_PING_HEADERS = {
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
    "Builder-Version": "1",
    "Swarm": "inactive",
    "Content-Type": "text/plain; charset=utf-8",
}


def routes(judges: Sequence[Judge]) -> list[Route]:
    """In the order in which they are to be tried. Each request passes the judges first."""

    def route(path: str, answer: Callable[[Request], Awaitable[Response]], *methods: str) -> Route:
        async def judged(request: Request) -> Response:
            for judge in judges:
                await judge(request)
            return await answer(request)

        made = Route(path, judged, methods=methods)
        made.methods = set(methods)  # GET does not mean HEAD, as with Docker
        return made

    return [
        route("/_ping", _ping, "GET", "HEAD"),
        route("/containers/json", _list, "GET"),
        route("/containers/{ref}/json", _inspect, "GET"),
    ]


async def _ping(request: Request) -> Response:
    return Response(b"OK" if request.method == "GET" else b"", headers=_PING_HEADERS)


async def _list(request: Request) -> Response:
    engine: Engine = request.app.state.engine
    query = request.query_params
    containers = engine.containers
    found = containers.matching(
        all=flag(query.get("all", "")),
        limit=integer(query.get("limit", "")) or 0,
        filters=parse(query.get("filters", "")),
    )
    sized = found if flag(query.get("size", "")) else []
    sizes = {container.id: await containers.size(container) for container in sized}
    return Rendered(summary_list(engine, found, request.state.version, sizes))


async def _inspect(request: Request) -> Response:
    engine: Engine = request.app.state.engine
    container = engine.containers.get(request.path_params["ref"])
    graph = await engine.containers.describe(container)
    sizes = await engine.containers.size(container) if flag(request.query_params.get("size", "")) else None
    return Rendered(container_text(engine, container, request.state.version, graph, sizes))
