"""The steps from an entry to an open driver, each in a worker, each failure with the state that it leaves the driver in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from wharfie.plugins.contract import methods
from wharfie.plugins.inventory import Entry
from wharfie.plugins.settings import Options
from wharfie.plugins.states import Refusal, State
from wharfie.plugins.supervisor import Supervisor
from wharfie.spi.driver import Deadline, Driver, Problem
from wharfie.spi.errors import WharfieError

D = TypeVar("D", bound=Driver[Any])
T = TypeVar("T")

IMPORT = Deadline(total=30)
"""For the import of foreign code."""

_LOG = logging.getLogger(__name__)


class Opening:
    """Of one driver."""

    def __init__(self, entry: Entry, supervisor: Supervisor) -> None:
        self.entry = entry
        self.supervisor = supervisor

    async def step(self, state: State, name: str, work: Callable[[], T], limit: Deadline) -> T:
        """Run one step. `state` is what the driver is when the step raises or hangs."""

        def caught() -> T | Refusal:
            try:
                return work()
            except Refusal as refusal:
                return refusal

        try:
            result = await self.supervisor.run(name, caught, limit, always=True)
        except WharfieError as error:
            raise Refusal(state, error.message, _REMEDIES[state].format(self.entry.distribution)) from error
        if isinstance(result, Refusal):
            raise result
        return result

    async def enter(self, driver: D, contract: type[D], chosen: Options) -> frozenset[Any]:
        """Check, open, and ask for the capabilities."""
        await self.step(State.FAILED, "check", lambda: self._judge(driver.check()), chosen.methods["check"].deadline)
        await self.step(State.FAILED, "open", driver.open, chosen.methods["open"].deadline)
        return await self.step(
            State.FAILED,
            "capabilities",
            lambda: frozenset(driver.capabilities()),
            methods(contract)["capabilities"].deadline,
        )

    def _judge(self, problems: Sequence[Problem]) -> None:
        """In the worker: fatal problems refuse, others are logged."""
        fatal = [problem for problem in problems if problem.fatal]
        for problem in problems:
            if not problem.fatal:
                _LOG.warning("%s: %s (%s)", self.entry.title, problem.what, problem.fix)
        if fatal:
            raise Refusal(
                State.UNFIT,
                f"{self.entry.title} cannot serve on this host: {'; '.join(problem.what for problem in fatal)}",
                f"To mend it: {'; '.join(problem.fix for problem in fatal)}",
            )


_REMEDIES: Mapping[State, str] = {
    State.BROKEN: "Ask the authors of {0}, or install another version of it",
    State.MISCONFIGURED: "Correct daemon.json and restart the daemon, or ask the authors of {0}",
    State.FAILED: "It is tried again at the next use; the daemon's log has more",
}
