"""The application: FastAPI with a router for each resource, behind the front."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from wharfie.api import (
    artifacts,
    bare,
    checkpoints,
    container_streams,
    containers,
    content,
    events,
    execs,
    files,
    images,
    inactive,
    metrics,
    networks,
    plugins,
    system,
    volumes,
)
from wharfie.api.authz import JudgedAnswers, authorizer
from wharfie.api.errors import PageNotFound, as_answer
from wharfie.api.front import Front, common_headers
from wharfie.api.responses import message
from wharfie.spi.errors import WharfieError

if TYPE_CHECKING:
    from wharfie.engine.engine import Engine

log = logging.getLogger("wharfie.api")

# The busiest first: routes are tried in order.
_ROUTERS = (
    system.router,
    containers.router,
    container_streams.router,
    execs.router,
    checkpoints.router,
    files.router,
    images.router,
    content.router,
    artifacts.router,
    networks.router,
    volumes.router,
    events.router,
    plugins.router,
    metrics.router,
    inactive.router,
)


def create_app(engine: Engine) -> Front:
    """The API of an engine, as an ASGI application."""
    settings = engine.settings
    judges: list[Callable[[Request], Awaitable[None]]] = []
    if settings.authorization_plugins:
        judges.append(authorizer(engine.drivers, settings.authorization_plugins))
    app = FastAPI(
        title="Wharfie",
        openapi_url=None,
        redirect_slashes=False,
        dependencies=[Depends(judge) for judge in judges],
        exception_handlers={
            WharfieError: _refused,
            Exception: _refused,
            HTTPException: _not_found,
            RequestValidationError: _bad_parameter,
        },
    )
    app.state.engine = engine
    app.state.common_headers = common_headers(settings.experimental)
    app.router.routes.extend(bare.routes(judges))
    for router in _ROUTERS:
        app.include_router(router)
    return Front(JudgedAnswers(app) if judges else app, experimental=settings.experimental)


async def _refused(request: Request, error: Exception) -> Response:
    status, text = as_answer(error)
    if status >= 500:
        log.warning("%s %s: %d %s", request.method, request.scope["path"], status, text)
    request.state.bare = isinstance(error, PageNotFound)
    return message(text, status)


async def _not_found(request: Request, error: Exception) -> Response:
    """The router found no path, or no such method on it."""
    return await _refused(request, PageNotFound())


async def _bad_parameter(request: Request, error: Exception) -> Response:
    """A query parameter that is not of its type, in FastAPI's own words."""
    faults = error.errors() if isinstance(error, RequestValidationError) else ()
    text = "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in faults)
    return message(f"invalid parameter {text}", 400)
