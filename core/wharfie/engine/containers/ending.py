"""The end of a container's process: recorded, everything given back, then restarted, removed or left.

Ends arrive as the runtime driver's events, in any order and possibly twice; a start after a crash of the daemon brings the
ones that were missed.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field

from wharfie.engine.containers.catalog import Catalog, Live
from wharfie.engine.containers.removal import Remover
from wharfie.engine.containers.start import Starter, container_attributes
from wharfie.engine.events import Events
from wharfie.engine.identity import parse_rfc3339, rfc3339
from wharfie.engine.model.container import Container, JoinedEndpoint
from wharfie.engine.networks.endpoints import Endpoints, forget_joined
from wharfie.engine.settings import EngineSettings
from wharfie.engine.volumes import Volumes
from wharfie.plugins.drivers import Drivers
from wharfie.spi.errors import WharfieError
from wharfie.spi.runtime import Exit, RuntimeDriver

log = logging.getLogger(__name__)

_FIRST_BACK_OFF = 0.1  # seconds; doubled at each restart
_LONGEST_BACK_OFF = 60.0
_STEADY = 10.0  # a run of this many seconds resets the back-off


@dataclass(slots=True, kw_only=True)
class Ending:
    settings: EngineSettings
    catalog: Catalog
    endpoints: Endpoints
    volumes: Volumes
    drivers: Drivers
    events: Events
    starter: Starter
    remover: Remover
    closing: bool = False
    """The daemon is ending: nothing is restarted."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def later(self, work: Awaitable[None], what: str) -> asyncio.Task[None]:
        """Run something in the background; a failure is logged, never lost."""

        async def guarded() -> None:
            try:
                await work
            except WharfieError as error:
                log.error("%s: %s", what, error)
            except Exception:
                log.exception("%s", what)

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def settle(self) -> None:
        """Wait until all ends that are under way have been dealt with."""
        while pending := [task for task in self._tasks if task is not asyncio.current_task()]:
            await asyncio.wait(pending)

    async def ended(self, container: Container, exit: Exit) -> None:
        """The container's process has ended."""
        live = self.catalog.live(container)
        async with live.lock:
            if container.id not in self.catalog or not container.state.running:
                return
            entries = self._record(container, exit)
            self._emit_die(container, exit)
            will_restart = self._will_restart(container, live)
            if will_restart:
                container.state.status = "restarting"
            steps = (self.catalog.save(container), self.endpoints.leave_all(container, entries), self._give_back(container))
            for outcome in await asyncio.gather(*steps, return_exceptions=True):
                # It has ended all the same, and whoever waits for that has to hear it: on a full disk nothing is recorded.
                if isinstance(outcome, WharfieError):
                    log.error("%s has ended, but: %s", container.name, outcome)
                elif isinstance(outcome, BaseException):
                    raise outcome
            await self._delete(container)
            live.waiting.exited(exit.code)
            if will_restart:
                self._schedule(container, live)
            goes = container.host_config.auto_remove and not will_restart and not live.restarting
        if goes and not self.remover.under_way(container):
            await self.remover.remove_ended(container)

    def _record(self, container: Container, exit: Exit) -> list[JoinedEndpoint]:
        state = container.state
        state.status = "exited"
        state.pid = 0
        state.exit_code = exit.code
        state.oom_killed = state.oom_killed or exit.out_of_memory
        state.finished_at = rfc3339(exit.at_ns)
        return forget_joined(container)

    def _emit_die(self, container: Container, exit: Exit) -> None:
        seconds = max(0, exit.at_ns - parse_rfc3339(container.state.started_at)) // 10**9
        attributes = container_attributes(container, exitCode=str(exit.code), execDuration=str(seconds))
        self.events.emit("container", "die", container.id, attributes)

    async def _give_back(self, container: Container) -> None:
        for mount in container.mounts:
            if mount.type != "volume":
                continue
            try:
                await self.volumes.unmount(mount, container)
            except WharfieError as error:
                log.warning("%s: volume %s is not unmounted: %s", container.name, mount.name, error)

    async def _delete(self, container: Container) -> None:
        try:
            runtime = await self.drivers.get(RuntimeDriver, container.runtime)
            await runtime.call(RuntimeDriver.delete, container.id, force=True)
        except WharfieError as error:
            log.warning("%s: the runtime keeps it: %s", container.name, error)
        bundle = self.settings.exec_root / "bundles" / container.id
        shutil.rmtree(bundle, ignore_errors=True)

    # ---- restarting

    def _will_restart(self, container: Container, live: Live) -> bool:
        policy = container.host_config.restart_policy
        if self.closing or live.stopping or container.manually_stopped:
            return False
        if policy.name in ("always", "unless-stopped"):
            return True
        if policy.name != "on-failure" or container.state.exit_code == 0:
            return False
        return not policy.maximum_retry_count or container.restart_count < policy.maximum_retry_count

    def _schedule(self, container: Container, live: Live) -> None:
        steady = time.monotonic() - live.started_monotonic >= _STEADY
        live.back_off = _FIRST_BACK_OFF if steady or not live.back_off else min(live.back_off * 2, _LONGEST_BACK_OFF)
        live.restart = self.later(self._restart(container, live, live.back_off), f"restarting {container.name}")

    async def _restart(self, container: Container, live: Live, delay: float) -> None:
        await asyncio.sleep(delay)
        async with live.lock:
            live.restart = None
            if container.state.status != "restarting" or self.closing:
                return
            container.restart_count += 1
            try:
                await self.starter.start(container)
                return
            except WharfieError as error:
                log.warning("%s is not restarted: %s", container.name, error)
            if self._will_restart(container, live):
                container.state.status = "restarting"
                await self.catalog.save(container)
                self._schedule(container, live)

    def cancel_restart(self, live: Live) -> None:
        if live.restart is not None:
            live.restart.cancel()
            live.restart = None
