"""Resource: drivers and hook plugins (ours), and Docker's managed plugins, of which this engine has none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.responses import Response

from wharfie.api.call import Asked, Call
from wharfie.api.responses import Json
from wharfie.api.streams import Stream
from wharfie.engine import plugins
from wharfie.plugins.contract import CONTRACTS
from wharfie.plugins.states import State
from wharfie.plugins.supervisor import LEAK_WATCH, Observed, Supervised
from wharfie.plugins.switch import check_key, set_disabled
from wharfie.spi.errors import InvalidArgument, NotFound, Unavailable

router = APIRouter()

_WAITING = 1000
"""Observed calls that a slow reader of a trace may be behind; then the oldest are dropped."""


@router.get("/wharfie/plugins")
async def list_drivers(call: Asked) -> Response:
    """What `wharfie plugin ls` shows."""
    return Json(
        [
            {
                "Kind": row.kind,
                "Name": row.name,
                "Distribution": row.distribution,
                "Version": row.version,
                "Enabled": row.state is not State.DISABLED,
                "State": row.state.value,
                "Cause": row.cause,
                "Remedy": row.remedy,
            }
            for row in call.engine.drivers.states()
        ]
    )


@router.get("/wharfie/doctor")
async def examine(call: Asked) -> Response:
    """What is wrong, and what mends it."""
    return Json(
        [
            {"Subject": one.subject, "What": one.what, "Fix": one.fix, "Command": one.command, "Wrong": one.wrong}
            for one in await plugins.doctor(call.engine)
        ]
    )


@router.get("/wharfie/plugins/{key}")
async def inspect_driver(call: Asked, key: str) -> Response:
    kind, _, name = key.partition(".")
    return Json(await plugins.inspect(call.engine, kind, name))


@router.post("/wharfie/plugins/{key}/enable")
async def enable(call: Asked, key: str) -> Response:
    return await _switch(call, key, on=True)


@router.post("/wharfie/plugins/{key}/disable")
async def disable(call: Asked, key: str) -> Response:
    return await _switch(call, key, on=False)


async def _switch(call: Call, key: str, *, on: bool) -> Response:
    """Write it into daemon.json, and do it now where nobody uses the driver yet."""
    check_key(key)
    drivers, settings = call.engine.drivers, call.engine.settings
    if not on and not any(key in (row.name, f"{row.kind}.{row.name}") for row in drivers.states()):
        raise NotFound(f"there is no driver or plugin {key}; `wharfie plugin ls` lists those that there are")
    changed = await asyncio.to_thread(set_disabled, settings.config_file, key, disabled=not on)
    return Json({"Changed": changed, "RestartNeeded": not drivers.switch(key, on=on), "File": str(settings.config_file)})


@router.get("/wharfie/plugins/{key}/trace")
async def trace(call: Asked, key: str) -> Response:
    """The calls into an open driver as they end, a JSON object a line."""
    kind, _, name = key.partition(".")
    if kind not in CONTRACTS:
        raise InvalidArgument(f"{key!r}: write KIND.NAME; kinds are {', '.join(CONTRACTS)}")
    driver = call.engine.drivers.loaded(CONTRACTS[kind]).get(name)
    if driver is None:
        raise Unavailable(f"driver {key} is not open, so there is nothing to see; it opens at its first use")
    return Stream(_calls(driver), Json.media_type)


async def _calls(driver: Supervised[Any]) -> AsyncIterator[bytes]:
    waiting: asyncio.Queue[Observed] = asyncio.Queue(_WAITING)

    def observe(seen: Observed) -> None:
        if waiting.full():
            waiting.get_nowait()
        waiting.put_nowait(seen)

    LEAK_WATCH.wanted += 1
    driver.supervisor.observers.add(observe)
    try:
        while True:
            seen = await waiting.get()
            line = {
                "Method": seen.method,
                "Object": seen.object,
                "Milliseconds": round(seen.seconds * 1000, 3),
                "Error": seen.error.message if seen.error else "",
                "Class": type(seen.error).__name__ if seen.error else "",
            }
            yield to_json(line) + b"\n"
    finally:
        driver.supervisor.observers.discard(observe)
        LEAK_WATCH.wanted -= 1


@router.get("/plugins")
async def list_managed() -> Response:
    return Json([])


@router.get("/plugins/{name:path}/json")
async def inspect_managed(name: str) -> Response:
    raise NotFound(f'plugin "{name}" not found')
