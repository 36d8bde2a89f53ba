"""Resource: events."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.responses import Response

from wharfie.api.call import Asked
from wharfie.api.query import Filters, Nanoseconds
from wharfie.api.responses import Json
from wharfie.api.streams import Stream, closing
from wharfie.api.views.event import event_view
from wharfie.spi.hooks import Event

router = APIRouter()


@router.get("/events")
async def events(call: Asked, filters: Filters, since: Nanoseconds = None, until: Nanoseconds = None) -> Response:
    found = call.engine.events.subscribe(since_ns=since, until_ns=until, filters=filters)
    return Stream(_lines(found), Json.media_type)


async def _lines(events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
    async with closing(events) as source:
        async for event in source:
            yield to_json(event_view(event)) + b"\n"
