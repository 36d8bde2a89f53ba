"""Figures as Prometheus text: `GET /wharfie/metrics`, and the server at the address that `metrics-addr` says.

What counts is in `collectors`, which is imported when somebody asks: its library costs a megabyte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from wharfie.api.call import Asked

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from wharfie.engine.engine import Engine

router = APIRouter()

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/wharfie/metrics")
async def metrics(call: Asked) -> Response:
    from wharfie.api.collectors import of_drivers

    return _answer(of_drivers(call.engine))


class MetricsApp:
    """An application that has `/metrics` and nothing else. Who reaches its address may read it, as with Docker."""

    def __init__(self, engine: Engine) -> None:
        from wharfie.api.collectors import of_engine

        self._registry = of_engine(engine)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        found = scope["path"] == "/metrics" and scope["method"] in ("GET", "HEAD")
        answer = _answer(self._registry) if found else PlainTextResponse("404 page not found\n", 404)
        await answer(scope, receive, send)


def _answer(registry: CollectorRegistry) -> Response:
    from prometheus_client import generate_latest

    return Response(generate_latest(registry), media_type=MEDIA_TYPE)
