"""What Prometheus is told: the engine's figures under Docker's names, and the drivers' under ours.

Names, help texts and buckets of `engine_daemon_…` are those of Docker's daemon, so that dashboards made for it go on.
Everything but the times of actions is read when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from wharfie.engine.actions import CONTAINER_ACTIONS, NETWORK_ACTIONS
from wharfie.engine.engine import Engine
from wharfie.plugins.contract import CONTRACTS
from wharfie.plugins.states import State

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

disable_created_metrics()  # type: ignore[no-untyped-call]  # series that Docker does not have


def of_engine(engine: Engine) -> CollectorRegistry:
    """All figures, for the address that `metrics-addr` says. The times of actions count from now on."""
    registry = of_drivers(engine)
    registry.register(_EngineCollector(engine))
    ProcessCollector(registry=registry)
    engine.actions.observe(_action_times(registry))
    return registry


def of_drivers(engine: Engine) -> CollectorRegistry:
    """The drivers' and plugins' figures."""
    registry = CollectorRegistry()
    registry.register(_DriverCollector(engine))
    return registry


def _action_times(registry: CollectorRegistry) -> Callable[[str, str, float], None]:
    times = {}
    for kind, actions in (("container", CONTAINER_ACTIONS), ("network", NETWORK_ACTIONS)):
        times[kind] = Histogram(
            f"engine_daemon_{kind}_actions_seconds",
            f"The number of seconds it takes to process each {kind} action",
            ("action",),
            buckets=_BUCKETS,
            registry=registry,
        )
        for action in actions:
            times[kind].labels(action)  # there from the beginning, with zeros
    return lambda kind, action, seconds: times[kind].labels(action).observe(seconds)


def _gauge(name: str, meaning: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> Metric:
    family = GaugeMetricFamily(name, meaning)
    for labels, value in samples:
        family.add_sample(name, dict(labels), value)
    return family


def _counter(name: str, meaning: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> Metric:
    family = CounterMetricFamily(name, meaning)
    for labels, value in samples:
        family.add_sample(name, dict(labels), value)
    return family


class _EngineCollector(Collector):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        engine = self._engine
        system, health, events = engine.system, engine.health, engine.events
        yield _gauge(
            "engine_daemon_container_states_containers",
            "The count of containers in various states",
            (({"state": state}, count) for state, count in system.container_states().items()),
        )
        host = system.host
        cpus = "The number of cpus that the host system of the engine has"
        yield _gauge("engine_daemon_engine_cpus_cpus", cpus, [({}, host.cpus)])
        about = "The information related to the engine and the OS it is running on"
        yield _gauge("engine_daemon_engine_info", about, [(system.about(), 1)])
        memory = "The number of bytes of memory that the host system of the engine has"
        yield _gauge("engine_daemon_engine_memory_bytes", memory, [({}, host.memory)])
        yield _counter("engine_daemon_events_total", "The number of events logged", [({}, events.emitted)])
        listening = "The number of current subscribers to events"
        yield _gauge("engine_daemon_events_subscribers_total", listening, [({}, events.listeners)])
        yield _counter("engine_daemon_health_checks_total", "The total number of health checks", [({}, health.checks)])
        failed = "The total number of failed health checks"
        yield _counter("engine_daemon_health_checks_failed_total", failed, [({}, health.failures)])


_DRIVER_FAMILIES: Mapping[str, tuple[str, str]] = {
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


class _DriverCollector(Collector):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        samples: dict[str, list[tuple[Mapping[str, str], float]]] = {name: [] for name in _DRIVER_FAMILIES}
        for family, labels, value in _driver_samples(self._engine):
            samples[family].append((labels, value))
        for family, (kind, meaning) in _DRIVER_FAMILIES.items():
            if samples[family]:
                yield (_gauge if kind == "gauge" else _counter)(family, meaning, samples[family])


def _driver_samples(engine: Engine) -> Iterable[tuple[str, Mapping[str, str], float]]:
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
