"""What is wrong with the drivers and plugins of this installation, and the command that mends each.

Works on a daemon that runs and on none at all: drivers that are in use are asked where they are, all others are tried out
in processes of their own.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from wharfie.plugins.contract import CONTRACTS
from wharfie.plugins.drivers import Drivers
from wharfie.plugins.remote.trial import Trial
from wharfie.plugins.states import Refusal, State
from wharfie.spi.driver import Driver
from wharfie.spi.errors import WharfieError

AT_ONCE = 4
"""Drivers that are tried at the same time."""

_COMMAND = re.compile(r"\b(pip|modprobe|apt|apt-get|systemctl|mount|sysctl|wharfie|docker) \S.*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong. `subject`: "volume.acme", or the name of a plugin. `wrong`: somebody needs it; otherwise a
    hint about a driver that nobody uses, or a problem that its author calls no hindrance."""

    subject: str
    what: str
    fix: str
    wrong: bool = True

    @property
    def command(self) -> str:
        """The part of `fix` that can be typed; empty when there is none."""
        found = _COMMAND.search(self.fix)
        return found[0].rstrip(".") if found else ""


async def examine(drivers: Drivers, needed: Collection[tuple[str, str]]) -> list[Finding]:
    """Look at every driver and plugin. `needed`: kind and name of what daemon.json names or containers use."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(kind: str, name: str) -> list[Finding]:
        async with limit:
            return await _examine(drivers, kind, name, (kind, name) in needed)

    rows = [row for row in drivers.states() if row.kind in CONTRACTS]
    names = sorted({(row.kind, row.name) for row in rows} | set(needed))
    found = [finding for part in await asyncio.gather(*(one(*key) for key in names)) for finding in part]
    return found + await _hooks(drivers)


async def _examine(drivers: Drivers, kind: str, name: str, needed: bool) -> list[Finding]:
    subject = f"{kind}.{name}"
    seen = await drivers.look(kind, name)
    if isinstance(seen, Refusal):
        if seen.state is State.DISABLED and not needed:
            return []
        # Nobody installs a package that cannot work on purpose, but a name that is only known and not needed may be absent.
        return [Finding(subject=subject, what=seen.cause, fix=seen.remedy, wrong=needed or seen.state is not State.ABSENT)]
    if isinstance(seen, Trial):
        if seen.refusal is not None:
            return [Finding(subject=subject, what=seen.refusal.cause, fix=seen.refusal.remedy)]
        return [
            Finding(subject=subject, what=problem.what, fix=problem.fix, wrong=problem.fatal and needed)
            for problem in seen.problems
        ]
    return await _examine_open(drivers, kind, name)


async def _examine_open(drivers: Drivers, kind: str, name: str) -> list[Finding]:
    """A driver in use: is it failing, has it lost workers, what do its `check` and `probe` say?"""
    subject = f"{kind}.{name}"
    contract = CONTRACTS[kind]
    driver = drivers.loaded(contract)[name]
    row = next(row for row in drivers.states() if (row.kind, row.name) == (kind, name))
    found = []
    if row.cause:
        found.append(Finding(subject=subject, what=row.cause, fix=row.remedy))
    if driver.supervisor.lost:
        what = f"{driver.supervisor.lost} of its workers hang in calls that were given up"
        found.append(
            Finding(subject=subject, what=what, fix="The daemon's log names the calls; restart the daemon to end them")
        )
    found += [
        Finding(subject=subject, what=leak, fix=f"Ask the authors of {driver.distribution}")
        for leak in drivers.leaks(kind, name)
    ]
    try:
        for problem in await driver.call(Driver.check):
            found.append(Finding(subject=subject, what=problem.what, fix=problem.fix, wrong=problem.fatal))
        await driver.call(Driver.probe)
    except WharfieError as error:
        if not found:
            found.append(Finding(subject=subject, what=error.message, fix="The daemon's log has more"))
    return found


async def _hooks(drivers: Drivers) -> list[Finding]:
    found = [
        Finding(subject=row.name, what=row.cause, fix=row.remedy)
        for row in drivers.states()
        if row.kind not in CONTRACTS and row.cause and row.state is not State.DISABLED
    ]
    problems: Sequence[object] = ()
    try:
        problems = await drivers.hooks.doctor_checks()
    except WharfieError as error:
        found.append(Finding(subject="plugins", what=error.message, fix="The daemon's log has more"))
    for problem in problems:
        what, fix = getattr(problem, "what", str(problem)), getattr(problem, "fix", "")
        found.append(Finding(subject="plugins", what=what, fix=fix, wrong=bool(getattr(problem, "fatal", True))))
    return found
