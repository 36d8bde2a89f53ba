"""Stopping and killing: by a signal, in time, and also a container that waits for its restart or is being restarted."""

from __future__ import annotations

import asyncio
import logging
import signal as signals
from dataclasses import dataclass

from wharfie.engine.containers.catalog import Catalog
from wharfie.engine.containers.ending import Ending
from wharfie.engine.containers.signals import parse as parse_signal
from wharfie.engine.containers.start import container_attributes
from wharfie.engine.containers.waiting import WaitResult
from wharfie.engine.events import Events
from wharfie.engine.model.container import Container
from wharfie.plugins.drivers import Drivers
from wharfie.spi.errors import Conflict, InvalidArgument, NotFound, WharfieError
from wharfie.spi.runtime import RuntimeDriver

log = logging.getLogger(__name__)

_KILL_PATIENCE = 10.0  # seconds until a SIGKILL must have ended a container


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopper:
    catalog: Catalog
    ending: Ending
    drivers: Drivers
    events: Events

    async def stop(self, container: Container, *, timeout: int | None, signal: str, for_shutdown: bool) -> bool:
        """See `Containers.stop`."""
        first = self._stop_signal(container, signal)
        live = self.catalog.live(container)
        container.manually_stopped = not for_shutdown
        while container.state.status == "restarting":
            if await self._stop_restarting(container):
                return True
            container.manually_stopped = not for_shutdown  # the restart that was under way has cleared it
        if not container.state.running:
            return False
        live.stopping = True
        try:
            ended = live.waiting.future("next-exit")
            await self._signal(container, first)
            if not await _within(ended, self._patience(container, timeout)):
                await self._kill(container, ended)
        finally:
            live.stopping = False
        await self._settled(container)
        self.events.emit("container", "stop", container.id, container_attributes(container))
        return True

    async def kill(self, container: Container, ref: str, signal: str) -> None:
        """See `Containers.kill`."""
        try:
            number = parse_signal(signal, signals.SIGKILL)
        except InvalidArgument as error:
            raise InvalidArgument(f"cannot kill container: {ref}: {error.message}") from error
        while container.state.status == "restarting":
            container.manually_stopped = True
            if await self._stop_restarting(container):
                return
        if not container.state.running:
            raise Conflict(f"cannot kill container: {ref}: container {container.id} is not running")
        live = self.catalog.live(container)
        if number in (signals.SIGKILL, self._stop_signal(container, "")):
            container.manually_stopped = True
        if number != signals.SIGKILL:
            await self._signal(container, number)
            return
        ended = live.waiting.future("next-exit")
        await self._kill(container, ended)
        await self._settled(container)

    async def end(self, container: Container) -> None:
        """End it for good: it is about to be removed. Errors: WharfieError (it does not die)."""
        live = self.catalog.live(container)
        live.stopping = True
        while container.state.status == "restarting":
            await self._stop_restarting(container)
        if container.state.running:
            await self._kill(container, live.waiting.future("next-exit"))

    async def _stop_restarting(self, container: Container) -> bool:
        """False: a restart was under way, and now it runs."""
        live = self.catalog.live(container)
        self.ending.cancel_restart(live)
        async with live.lock:
            if container.state.status == "restarting":
                container.state.status = "exited"
                await self.catalog.save(container)
            return not container.state.running

    def _stop_signal(self, container: Container, text: str) -> int:
        try:
            return parse_signal(text or container.config.stop_signal, signals.SIGTERM)
        except InvalidArgument as error:
            raise InvalidArgument(f"cannot stop container: {container.name}: {error.message}") from error

    def _patience(self, container: Container, timeout: int | None) -> float | None:
        seconds = container.config.stop_timeout if timeout is None else timeout
        if seconds is None:
            seconds = self.ending.settings.default_stop_timeout
        return None if seconds < 0 else float(seconds)

    async def _settled(self, container: Container) -> None:
        """Until the end of the container is recorded and everything given back."""
        async with self.catalog.live(container).lock:
            return

    async def _kill(self, container: Container, ended: asyncio.Future[WaitResult]) -> None:
        await self._signal(container, signals.SIGKILL)
        if not await _within(ended, _KILL_PATIENCE):
            raise WharfieError(
                f"cannot kill container: {container.name}: it did not end {_KILL_PATIENCE:.0f} s after SIGKILL; a process "
                "may be stuck in the kernel (see its state D in docker top)"
            )

    async def _signal(self, container: Container, number: int) -> None:
        """Send a signal; a frozen container is thawed so that it can act on it. One that just ended is fine."""
        runtime = await self.drivers.get(RuntimeDriver, container.runtime)
        try:
            await runtime.call(RuntimeDriver.signal, container.id, number)
            if container.state.status == "paused":
                await runtime.call(RuntimeDriver.resume, container.id)
        except (NotFound, Conflict) as error:
            log.debug("%s: signal %d came too late: %s", container.name, number, error)
            return
        self.events.emit("container", "kill", container.id, container_attributes(container, signal=str(int(number))))


async def _within(future: asyncio.Future[WaitResult], seconds: float | None) -> bool:
    """Whether the future is settled in time."""
    done, _ = await asyncio.wait([future], timeout=seconds)
    return bool(done)
