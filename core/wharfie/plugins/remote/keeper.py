"""Keeps a driver's process alive: starts it, starts it again when it dies, and kills it when it hangs.

A restart goes the way of the first start (import, settings, construction, check, open) and then has the engine tell the
new process what it must know (`reconcile`). Until that is done, other calls fail with Unavailable: a driver that keeps its
truth in memory must not answer before it has it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from wharfie.plugins.leaks import Census
from wharfie.plugins.opening import IMPORT, Opening
from wharfie.plugins.remote.border import Ready
from wharfie.plugins.remote.process import DriverProcess
from wharfie.plugins.remote.proxy import proxy
from wharfie.plugins.settings import Options
from wharfie.plugins.states import Refusal, State
from wharfie.plugins.supervisor import Supervised
from wharfie.spi.driver import Context, Driver
from wharfie.spi.errors import Unavailable, WharfieError

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0
"""Seconds before a dead process is started again; doubled each time, until one has lived as long as the longest."""
HEARTBEAT = 30.0
"""Seconds without a call after which the process is asked to `probe`."""

_LOG = logging.getLogger(__name__)
_RECOVERING: ContextVar[Keeper | None] = ContextVar("wharfie_recovering", default=None)


class Keeper:
    """Of one driver. `call` is for workers; all else belongs to the event loop's thread."""

    def __init__(
        self,
        opening: Opening,
        contract: type[Driver[Any]],
        context: Context,
        chosen: Options,
        restarted: Callable[[], Awaitable[None]],
    ) -> None:
        """`restarted`: awaited when a new process is open, before it serves anybody else."""
        self._opening = opening
        self._contract = contract
        self._context = context
        self._chosen = chosen
        self._restarted = restarted
        self._loop = asyncio.get_running_loop()
        self._process: DriverProcess | None = None  # opened; admitted to all when `down` is empty
        self._starting: DriverProcess | None = None
        self._supervised: Supervised[Any] | None = None
        self._census: Census | None = None
        self._leaks_told = False
        self._pause = FIRST_PAUSE
        self._again_at = 0.0
        self._opened_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self.restarts = 0
        self.down = ""
        """Why the driver does not serve now; empty when it does."""

    @property
    def pid(self) -> int:
        """Of the process that serves; 0 while there is none."""
        return self._process.pid if self._process is not None else 0

    def leaks(self) -> Sequence[str]:
        """What the process has kept since it began to serve."""
        return self._census.leaks() if self._census is not None else ()

    async def open(self) -> tuple[Ready, frozenset[Any]]:
        """The first start; what is known of the driver, and its capabilities. Errors: Refusal."""
        self._opening.supervisor.on_late = self.kill
        process, ready, capabilities = await self._start()
        self._process, self._opened_at = process, time.monotonic()
        self._census = Census(process.pid)
        if process.ended:
            self._over(process)
        return ready, capabilities

    def watch(self, supervised: Supervised[Any]) -> None:
        """The driver is in use from now on: ask it to `probe` when it is idle, and keep its capabilities right."""
        self._supervised = supervised
        self._spawn(self._heartbeat(supervised))

    def call(self, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """In a worker: call the driver. Errors: Unavailable while there is no process to serve; see DriverProcess.call."""
        process, down = self._process, self.down
        if process is None or (down and _RECOVERING.get() is not self):
            wait = max(0.0, self._again_at - time.monotonic())
            raise Unavailable(down or "its process has ended with the daemon", retry_after=wait)
        return process.call(method, args, kwargs)

    def schema(self) -> Mapping[str, Any] | None:
        """In a worker: see DriverProcess.schema."""
        process = self._process
        if process is None:
            raise Unavailable(self.down or "its process has ended")
        return process.schema()

    def kill(self) -> None:
        """A call is late: whatever hangs ends now."""
        for process in (self._process, self._starting):
            if process is not None:
                process.kill("it kept a call longer than its deadline")

    async def close(self) -> None:
        """End the process. Waits a moment for it. May be repeated."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        for process in (self._process, self._starting):
            if process is not None:
                await asyncio.to_thread(process.end)
        self._process = None

    async def _start(self) -> tuple[DriverProcess, Ready, frozenset[Any]]:
        opening = self._opening
        process = DriverProcess(
            opening.entry,
            self._contract,
            self._context,
            self._chosen.own,
            self._chosen.workers,
            self._ended,
        )
        self._starting = process
        try:
            ready = await opening.step(State.BROKEN, "import", process.start, IMPORT)
            driver = proxy(self._contract, opening.entry.name, ready, process.call)
            capabilities = await opening.enter(driver, self._contract, self._chosen)
        except BaseException:
            process.kill()
            raise
        finally:
            self._starting = None
        return process, ready, capabilities

    def _ended(self, process: DriverProcess) -> None:
        """In the process's reading thread."""
        try:
            self._loop.call_soon_threadsafe(self._over, process)
        except RuntimeError:
            return  # the loop has ended before it

    def _over(self, process: DriverProcess) -> None:
        """A process has ended; only that of the one in use matters here."""
        if process is not self._process or self._closed:
            return
        lived = time.monotonic() - self._opened_at
        self._pause = FIRST_PAUSE if lived >= LONGEST_PAUSE else self._pause
        self._process = None
        _LOG.error("%s: its process %s", self._opening.entry.title, process.ended)
        self._spawn(self._revive(f"its process {process.ended}"))

    async def _revive(self, why: str) -> None:
        while True:
            pause, self._pause = self._pause, min(self._pause * 2, LONGEST_PAUSE)
            self._again_at = time.monotonic() + pause
            self.down = f"{why}; it is started again in {pause:g} s"
            await asyncio.sleep(pause)
            self.down = f"{why}; it is being started again"
            try:
                process, _, capabilities = await self._start()
            except (Refusal, WharfieError) as error:
                _LOG.error("%s cannot be started again: %s", self._opening.entry.title, error)
                why = f"its process could not be started again: {error}"
                continue
            if not process.ended:
                break
            why = f"its process {process.ended}"
        self.restarts += 1
        self._process, self._opened_at = process, time.monotonic()
        self._census, self._leaks_told = Census(process.pid), False
        if self._supervised is not None:
            self._supervised.capabilities = capabilities
        _RECOVERING.set(self)  # of this task, and of the calls that it makes
        try:
            await self._restarted()
        except Exception:  # noqa: BLE001  # the driver serves all the same; what it was not told is in the log
            _LOG.exception("%s could not be told what it must know", self._opening.entry.title)
        if self._process is not process:
            return  # it has died meanwhile, and another revival is under way
        self.down = ""
        _LOG.info("%s: process %d serves again", self._opening.entry.title, process.pid)

    async def _heartbeat(self, supervised: Supervised[Any]) -> None:
        """A process that hangs whole, without a call that could be late, is found by this."""
        seen = -1
        while True:
            await asyncio.sleep(HEARTBEAT)
            self._tell_leaks()
            calls = sum(figures.calls for figures in supervised.figures.values())
            if calls == seen and not self.down:
                try:
                    await supervised.call(Driver.probe)
                except WharfieError as error:
                    _LOG.warning("%s", error.message)
                calls += 1
            seen = calls

    def _tell_leaks(self) -> None:
        if not self._leaks_told:
            for leak in self.leaks():
                self._leaks_told = True
                _LOG.warning("%s leaks: %s", self._opening.entry.title, leak)

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
