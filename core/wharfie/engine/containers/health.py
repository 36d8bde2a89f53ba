"""Health checks: a container's own probe, run again and again while the container runs (Docker Engine API, HealthConfig).

A probe is an exec. Exit code 0 is healthy; anything else, and a probe that takes too long, is a failure, and `retries`
failures in a row are unhealthy. Failures before the end of the start period do not count as long as no probe has succeeded.
All waiting is by the monotonic clock, so that a clock that is set does neither hurry nor stop the probes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from wharfie.engine.containers.catalog import Catalog
from wharfie.engine.containers.start import container_attributes
from wharfie.engine.events import Events
from wharfie.engine.execs import Execs
from wharfie.engine.identity import parse_rfc3339, rfc3339
from wharfie.engine.model.config import Config, HealthConfig
from wharfie.engine.model.container import Container, ExecCreate, Health, HealthLog
from wharfie.spi.errors import InvalidArgument, WharfieError
from wharfie.spi.hooks import Event
from wharfie.spi.runtime import AttachRequest

log = logging.getLogger(__name__)

OUTPUT_LIMIT = 4096
"""Bytes of a probe's output that are kept; the rest is read and dropped."""
LOG_LIMIT = 5
"""Probes that inspect shows."""
_FAILED = -1  # the exit code of a probe that was not executed or took too long
_SECOND = 10**9
_MILLISECOND = 10**6
_DRAIN = 1.0  # seconds that the last output of an ended probe may take to arrive
_DEFAULT_SHELL = ("/bin/sh", "-c")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A health check with its defaults filled in (contract defaults, section 8). Times in seconds."""

    command: tuple[str, ...]
    interval: float
    timeout: float
    start_period: float
    start_interval: float
    retries: int


def check(health: HealthConfig | None) -> None:
    """Errors: InvalidArgument with Docker's texts."""
    if health is None:
        return
    for name, value in (
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ):
        if value and value < _MILLISECOND:
            raise InvalidArgument(f"{name} in Healthcheck cannot be less than 1ms")
    if health.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")
    if health.test and (
        health.test[0] not in ("NONE", "CMD", "CMD-SHELL") or (health.test[0] != "NONE" and not health.test[1:])
    ):
        raise InvalidArgument(f'invalid health check: want ["NONE"], ["CMD", …] or ["CMD-SHELL", "…"], not {health.test}')


def probe_of(config: Config) -> Probe | None:
    """The probe of a configuration; None when it has none or switches it off."""
    health = config.healthcheck
    if health is None or not health.test or health.test[0] == "NONE":
        return None
    kind, *words = health.test
    shell = (config.shell or _DEFAULT_SHELL) if kind == "CMD-SHELL" else ()
    return Probe(
        command=(*shell, *words),
        interval=(health.interval or 30 * _SECOND) / _SECOND,
        timeout=(health.timeout or 30 * _SECOND) / _SECOND,
        start_period=health.start_period / _SECOND,
        start_interval=(health.start_interval or 5 * _SECOND) / _SECOND,
        retries=health.retries or 3,
    )


@dataclass(slots=True, kw_only=True)
class HealthChecks:
    """The probes of all running containers; follows the containers' events."""

    catalog: Catalog
    execs: Execs
    events: Events
    checks: int = 0  # since the daemon's start
    failures: int = 0
    _monitors: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def follow(self) -> None:
        """Watch containers from now on."""
        self.events.observe(self._on_event)

    def _on_event(self, event: Event) -> None:
        if event.type != "container" or event.actor not in self.catalog:
            return
        container = self.catalog.get(event.actor)
        if event.action == "start":
            self._begin(container)
        elif event.action == "unpause":
            self.adopt(container)
        elif event.action in ("pause", "die"):
            self._stop_probing(container)
            if event.action == "die" and container.state.health is not None:
                container.state.health.status = "unhealthy"  # as Docker shows a container that has ended

    def _begin(self, container: Container) -> None:
        if probe_of(container.config) is not None:
            kept = container.state.health.log if container.state.health else []
            container.state.health = Health(log=kept)
            self.adopt(container)

    def adopt(self, container: Container) -> None:
        """Go on with a running container whose state is known: after a daemon's start, after a pause."""
        probe = probe_of(container.config)
        if probe is None or container.state.status != "running":
            return
        self._stop_probing(container)
        if container.state.health is None:
            container.state.health = Health()
        task = asyncio.get_running_loop().create_task(self._watch(container, container.state.health, probe))
        self._monitors[container.id] = task

    async def rest(self, container: Container) -> None:
        """Stop probing, after a probe that is under way; `adopt` goes on."""
        async with self.catalog.live(container).probing:
            self._stop_probing(container)

    def close(self) -> None:
        """The daemon ends; probes under way end by themselves."""
        for monitor in self._monitors.values():
            monitor.cancel()
        self._monitors.clear()

    def _stop_probing(self, container: Container) -> None:
        monitor = self._monitors.pop(container.id, None)
        if monitor is not None:
            monitor.cancel()

    async def _watch(self, container: Container, health: Health, probe: Probe) -> None:
        # Seconds since the start, as far as the wall clock knows for an adopted container.
        age = max(0.0, (time.time_ns() - parse_rfc3339(container.state.started_at)) / _SECOND)
        started = time.monotonic() - age
        try:
            while True:
                early = health.status == "starting" and time.monotonic() - started < probe.start_period
                await asyncio.sleep(probe.start_interval if early else probe.interval)
                began = time.monotonic()
                async with self.catalog.live(container).probing:
                    found = await self._run(container, probe)
                await self._judge(container, health, probe, found, in_start_period=began - started < probe.start_period)
        except WharfieError as error:
            log.error("container %s: its health is not checked any more: %s", container.name, error)

    async def _judge(
        self, container: Container, health: Health, probe: Probe, found: HealthLog, *, in_start_period: bool
    ) -> None:
        before = health.status
        self.checks += 1
        self.failures += found.exit_code != 0
        health.log = [*health.log, found][-LOG_LIMIT:]
        if found.exit_code == 0:
            health.failing_streak, health.status = 0, "healthy"
        elif before != "starting" or not in_start_period:
            health.failing_streak += 1
            if health.failing_streak >= probe.retries:
                health.status = "unhealthy"
        if health.status == before:
            return
        self.events.emit("container", f"health_status: {health.status}", container.id, container_attributes(container))
        async with self.catalog.live(container).lock:
            if container.id in self.catalog and container.state.running:
                await self.catalog.save(container)

    async def _run(self, container: Container, probe: Probe) -> HealthLog:
        """One probe, started, awaited and, when it takes too long, killed."""
        start = rfc3339()
        request = ExecCreate(attach_stdout=True, attach_stderr=True, cmd=list(probe.command))
        try:
            exec_id = await self.execs.create(container.id, request)
            code, output = await self._execute(exec_id, probe.timeout)
        except WharfieError as error:
            code, output = _FAILED, error.message
        return HealthLog(start=start, end=rfc3339(), exit_code=code, output=output)

    async def _execute(self, exec_id: str, timeout: float) -> tuple[int, str]:
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            output = bytearray()
            reading = asyncio.get_running_loop().create_task(_read(ours, output))
            try:
                wanted = AttachRequest(stdout=True, stderr=True, framed=False)
                async with asyncio.timeout(timeout):
                    ended = self.execs.exit_of(exec_id)
                    await self.execs.start(exec_id, client=theirs, request=wanted, size=None, tell=False)
                    code = await ended
                await asyncio.wait([reading], timeout=_DRAIN)
                return code, _text(output)
            except TimeoutError:
                with contextlib.suppress(WharfieError):  # it ended in this very moment
                    await self.execs.kill(exec_id)
                return _FAILED, f"Health check exceeded timeout ({_duration(timeout)}): {_text(output)}"
            finally:
                reading.cancel()


async def _read(source: socket.socket, output: bytearray) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while piece := await loop.sock_recv(source, OUTPUT_LIMIT):
            output += piece[: OUTPUT_LIMIT - len(output)]


def _text(output: Sequence[int]) -> str:
    return bytes(output).decode("utf-8", "replace")


def _duration(seconds: float) -> str:
    """As Go writes it: 500ms, 1.5s, 1m30s, 1h0m0s."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{rest:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
