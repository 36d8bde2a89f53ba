"""Figures of drivers and plugins as Prometheus text: calls, failures, seconds, circuits, workers, restarts, debts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from wharfie.api.call import Asked
from wharfie.engine.engine import Engine
from wharfie.plugins.contract import CONTRACTS
from wharfie.plugins.states import State

router = APIRouter()

Sample = tuple[Mapping[str, str], float]

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FAMILIES: Mapping[str, tuple[str, str]] = {
    "wharfie_driver_state": ("gauge", "1 for the state that a driver is in"),
    "wharfie_driver_calls_total": ("counter", "Calls into a driver that have ended"),
    "wharfie_driver_failures_total": ("counter", "Calls that ended with an error"),
    "wharfie_driver_seconds_total": ("counter", "Seconds spent in a driver"),
    "wharfie_driver_circuit_open": ("gauge", "1 while a driver is not asked because it keeps failing"),
    "wharfie_driver_lost_workers": ("gauge", "Workers that hang in calls that were given up"),
    "wharfie_driver_restarts_total": ("counter", "Times that a driver's own process was started again"),
    "wharfie_driver_debts": ("gauge", "Removals that failed and are owed"),
    "wharfie_hook_events_dropped_total": ("counter", "Events that a slow plugin never got"),
    "wharfie_hook_events_failed_total": ("counter", "Events that a plugin failed on"),
}


@router.get("/wharfie/metrics")
async def metrics(call: Asked) -> Response:
    return PlainTextResponse("".join(_lines(call.engine)), media_type=MEDIA_TYPE)


def _lines(engine: Engine) -> Iterator[str]:
    samples: dict[str, list[Sample]] = {name: [] for name in _FAMILIES}
    for family, labels, value in _samples(engine):
        samples[family].append((labels, value))
    for family, (kind, meaning) in _FAMILIES.items():
        if samples[family]:
            yield f"# HELP {family} {meaning}\n# TYPE {family} {kind}\n"
            yield from (f"{family}{{{_labels(labels)}}} {value:g}\n" for labels, value in samples[family])


def _samples(engine: Engine) -> Iterable[tuple[str, Mapping[str, str], float]]:
    for row in engine.drivers.states():
        labels = {"kind": row.kind, "driver": row.name, "distribution": row.distribution, "version": row.version}
        if row.state is not State.INSTALLED:
            yield "wharfie_driver_state", labels | {"state": row.state.value}, 1
    for contract in CONTRACTS.values():
        for name, driver in sorted(engine.drivers.loaded(contract).items()):
            labels = {"kind": contract.kind, "driver": name}
            supervisor = driver.supervisor
            yield "wharfie_driver_circuit_open", labels, supervisor.circuit.open
            yield "wharfie_driver_lost_workers", labels, supervisor.lost
            facts = engine.drivers.facts(contract.kind, name)
            if facts["Isolated"]:
                yield "wharfie_driver_restarts_total", labels, facts["Restarts"]
            for method, figures in sorted(driver.figures.items()):
                own = labels | {"method": method}
                yield "wharfie_driver_calls_total", own, figures.calls
                yield "wharfie_driver_failures_total", own, figures.failures
                yield "wharfie_driver_seconds_total", own, figures.seconds
    owed: dict[tuple[str, str], int] = {}
    for debt in engine.debts:
        owed[debt.kind, debt.driver] = owed.get((debt.kind, debt.driver), 0) + 1
    for (kind, name), count in sorted(owed.items()):
        yield "wharfie_driver_debts", {"kind": kind, "driver": name}, count
    for name, dropped, failed in engine.drivers.hooks.deliveries():
        yield "wharfie_hook_events_dropped_total", {"plugin": name}, dropped
        yield "wharfie_hook_events_failed_total", {"plugin": name}, failed


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
