"""One call into foreign code: a worker, a deadline, the circuit, one clear error, and figures.

What a call costs on top of the driver's own time is one hop to a thread and back, about a tenth of a millisecond.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from wharfie.plugins.circuit import Circuit
from wharfie.plugins.contract import Method, checked
from wharfie.plugins.failure import subject_of
from wharfie.plugins.inventory import Entry
from wharfie.plugins.leaks import Findings, Watch
from wharfie.plugins.run import Run
from wharfie.plugins.worker import Exhausted, Pool
from wharfie.spi.driver import Deadline, Driver
from wharfie.spi.errors import DeadlineExceeded, DriverError, Unavailable, WharfieError

D = TypeVar("D", bound=Driver[Any])
P = ParamSpec("P")
T = TypeVar("T")

_LOG = logging.getLogger(__name__)


LEAK_WATCH = Watch()
"""Turned on by `debug`, and while somebody traces a driver."""


@dataclass(frozen=True, slots=True)
class Observed:
    """One call that has ended, for `wharfie plugin trace`."""

    method: str
    object: str
    seconds: float
    error: WharfieError | None


@dataclass(slots=True)
class MethodFigures:
    """What one method has cost so far."""

    calls: int = 0
    failures: int = 0
    seconds: float = 0.0  # from the worker's beginning to its end, or to the deadline


class Supervisor:
    """Guards one foreign party, a driver or a hook plugin. All methods belong to the event loop's thread."""

    def __init__(self, entry: Entry, workers: int) -> None:
        self.entry = entry
        self.circuit = Circuit()
        self.figures: dict[str, MethodFigures] = {}
        self.probe: Callable[[], Awaitable[None]] | None = None
        self.on_recovery: Callable[[], None] | None = None
        self.findings = Findings()
        self.observers: set[Callable[[Observed], None]] = set()
        """Told of each call that has ended, in the event loop's thread. They must not raise."""
        self.on_late: Callable[[], None] | None = None  # a call that has begun was given up
        self._pool = Pool(f"{entry.kind}.{entry.name}", workers)
        self._probing: asyncio.Task[WharfieError | None] | None = None
        self._settings = f'"drivers.{entry.kind}.{entry.name}" of daemon.json'

    @property
    def lost(self) -> int:
        """Workers that hang in calls which were given up."""
        return self._pool.lost

    async def run(
        self, method: str, work: Callable[[], T], limit: Deadline, arguments: Sequence[Any] = (), *, always: bool = False
    ) -> T:
        """Run `work` in a worker and give its result, or raise one error of the taxonomy.

        `always`: even while the circuit is open. Cancelling the awaiting task tells the driver by `Call.cancelled`.
        Errors: what the driver raised, DeadlineExceeded, Unavailable (circuit open, no worker).
        """
        if self.circuit.open and not always:
            await self._pass_circuit()
        if LEAK_WATCH.on:
            unwatched = work
            work = lambda: LEAK_WATCH.around(self.findings, run, unwatched)  # noqa: E731
        run: Run[T] = Run(self.entry.title, method, arguments, work, limit, self._settle)
        try:
            self._pool.submit(run)
        except Exhausted:
            raise self._exhausted() from None
        self._watch(run)
        try:
            error = await run.future
        except asyncio.CancelledError:
            run.call.cancel()
            if self._pool.withdraw(run):
                self._settle(run)
            raise
        if error is not None:
            raise error
        return run.value  # type: ignore[return-value]  # without an error this is work's result, which may be None

    def close(self) -> None:
        """Idle workers end; nothing can be run any more."""
        self._pool.close()

    def _watch(self, run: Run[T]) -> None:
        due = run.due()
        if due is not None:
            run.timer = run.loop.call_later(max(0.0, due - time.monotonic()), self._late, run)

    def _late(self, run: Run[T]) -> None:
        due = run.due()
        if run.settled or due is None:
            return
        if due > time.monotonic():  # it began late, or its stream moved meanwhile
            self._watch(run)
        elif self._pool.withdraw(run):
            self._settle(run, self._not_begun(run))
        elif self._pool.write_off(run):
            run.call.cancel()
            self._settle(run, self._too_late(run))
            if self.on_late is not None:
                self.on_late()

    def _settle(self, run: Run[T], error: WharfieError | None = None) -> None:
        """Once for each call, with what came first: its return, its deadline, or that it was withdrawn.

        A call whose caller has gone is watched to its end all the same: it may still hang, and cost a worker.
        """
        if run.settled:
            return
        run.settled = True
        if run.timer is not None:
            run.timer.cancel()
        error = error or run.error
        figures = self.figures.setdefault(run.method, MethodFigures())
        seconds = run.seconds if run.over else time.monotonic() - (run.began or run.submitted)
        figures.calls += 1
        figures.seconds += seconds
        if self.observers:
            observed = Observed(run.method, subject_of(run.arguments), seconds, error)
            for observer in tuple(self.observers):
                observer(observed)
        if error is None:
            self.circuit.succeeded()
        else:
            figures.failures += 1
            if isinstance(error, DriverError | DeadlineExceeded):
                self.circuit.failed(error.message)
        if not run.future.done():
            run.future.set_result(error)

    async def _pass_circuit(self) -> None:
        wait = self.circuit.wait()
        if wait > 0:
            raise Unavailable(
                f"{self.entry.title} keeps failing and is not asked for another {wait:.0f} s. "
                f"Its last failure: {self.circuit.cause}",
                retry_after=wait,
            )
        if self._probing is None:
            self._probing = asyncio.get_running_loop().create_task(self._probe())
            self._probing.add_done_callback(self._probed)
        error = await asyncio.shield(self._probing)
        if error is not None:
            raise Unavailable(
                f"{self.entry.title} keeps failing, and so did its probe: {error.message}", retry_after=self.circuit.wait()
            )

    async def _probe(self) -> WharfieError | None:
        try:
            if self.probe is not None:
                await self.probe()
        except WharfieError as error:
            self.circuit.probe_failed(error.message)
            return error
        self.circuit.close()
        _LOG.info("%s answers again", self.entry.title)
        if self.on_recovery is not None:
            self.on_recovery()
        return None

    def _probed(self, _: asyncio.Task[WharfieError | None]) -> None:
        self._probing = None

    def _not_begun(self, run: Run[T]) -> Unavailable:
        return Unavailable(
            f"{self.entry.title}: {run.action} was not begun, all {self._pool.size} workers are busy. "
            f'Try again later, or raise "workers" in {self._settings}'
        )

    def _too_late(self, run: Run[T]) -> DeadlineExceeded:
        took = time.monotonic() - (run.began or run.submitted)
        returned = run.limit.total is not None and took >= run.limit.total
        what = f"did not return within {run.limit.total:g} s" if returned else f"moved nothing for {run.limit.idle:g} s"
        return DeadlineExceeded(
            f"{self.entry.title}: {run.action} {what}, so its outcome is unknown (call {run.call.id}). "
            f'The limit can be set by "deadlines": {{"{run.method}": SECONDS}} in {self._settings}',
            details={"call": run.call.id},
        )

    def _exhausted(self) -> Unavailable:
        return Unavailable(
            f"{self.entry.title}: all {self._pool.size} workers hang in earlier calls, so it cannot serve. "
            "The daemon's log names these calls; restarting the daemon ends them"
        )


class Supervised(Generic[D]):
    """A driver that is open, as the engine sees it: `await volume.call(VolumeDriver.mount, "data", "c1")`."""

    def __init__(
        self,
        driver: D,
        contract: type[D],
        supervisor: Supervisor,
        methods: Mapping[str, Method],
        capabilities: frozenset[Any],
    ) -> None:
        self._driver = driver
        self._methods = methods
        self.contract = contract
        self.supervisor = supervisor
        self.capabilities = capabilities
        """The driver's optional abilities here, members of its kind's enumeration."""
        supervisor.probe = lambda: self.call(Driver.probe)

    @property
    def kind(self) -> str:
        """ "volume", "network", …"""
        return self.contract.kind

    @property
    def name(self) -> str:
        """The name that users type."""
        return self.supervisor.entry.name

    @property
    def distribution(self) -> str:
        """The distribution that brought it, with its version: "wharfie-acme 0.3"."""
        return f"{self.supervisor.entry.distribution} {self.supervisor.entry.version}"

    @property
    def title(self) -> str:
        """How messages name it: `volume driver "acme" (wharfie-acme 0.3)`."""
        return self.supervisor.entry.title

    @property
    def driver_class(self) -> type[D]:
        """For what is declared on the class, such as `LogDriver.sink`. Its methods are not to be called."""
        return type(self._driver)

    @property
    def figures(self) -> Mapping[str, MethodFigures]:
        """Calls, failures and seconds by method."""
        return self.supervisor.figures

    async def call(self, method: Callable[Concatenate[D, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the contract, in a worker, within its deadline.

        Errors: those of the contract's method as the driver raised them; DriverError for anything else that it did;
        DeadlineExceeded (the outcome is unknown); Unavailable (it keeps failing, or all its workers hang).
        """
        rule = self._methods[method.__name__]
        driver = self._driver

        def work() -> T:
            # By name, so that the driver's own method runs and not the contract's.
            result: T = getattr(driver, rule.name)(*args, **kwargs)
            return checked(rule, result)

        return await self.supervisor.run(rule.name, work, rule.deadline, args, always=rule.always)
