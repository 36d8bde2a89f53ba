"""What a rule works with: the driver's folders, new instances on them (as after a restart), and what was called."""

from __future__ import annotations

import logging
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from wharfie.kit.drivers import Candidate, host_facts
from wharfie.kit.rules import NotTried, Violation
from wharfie.plugins.contract import CONTRACTS, methods
from wharfie.spi.driver import Context, Driver, DriverEvent

D = TypeVar("D", bound=Driver[Any])
T = TypeVar("T")


class _Watched:
    """A driver whose calls are noted, with their times; results are checked against the contract's types."""

    def __init__(self, driver: Driver[Any], rig: Rig[Any]) -> None:
        self._driver = driver
        self._rig = rig
        self._open = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._driver, name)
        contract = self._rig.methods.get(name)
        if contract is None:
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            self._rig.called.add(name)
            if name in ("open", "close"):
                self._open = name == "open"
            begin = time.monotonic()
            try:
                result = found(*arguments, **named)
            finally:
                took = time.monotonic() - begin
                self._rig.slowest[name] = max(took, self._rig.slowest.get(name, 0.0))
            if contract.returns and not isinstance(result, contract.returns):
                wanted = " or ".join(one.__name__ for one in contract.returns)
                raise Violation(f"{name} must return {wanted}, it returned {type(result).__name__}: {result!r}")
            return result

        return call


@dataclass
class Rig(Generic[D]):
    """One rule's surroundings. `scratch`: the rule's own; `state`, `run`: the driver's."""

    candidate: Candidate
    kind: str
    folder: Path
    crash: str = "sample"
    make: Callable[[Candidate, Context], Driver[Any]] = lambda candidate, context: candidate.factory(context)
    instance: str = field(default_factory=lambda: secrets.token_hex(4))
    called: set[str] = field(default_factory=set)
    slowest: dict[str, float] = field(default_factory=dict)
    events: list[DriverEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.methods = methods(CONTRACTS[self.kind])
        self.host = host_facts()
        self.scratch = self._new("scratch")
        self.state = self._new("state")
        self.run = self._new("run")

    def _new(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir(mode=0o700)
        return path

    def other_folders(self) -> Rig[D]:
        """The same driver on fresh folders, as for another daemon."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        return Rig(
            candidate=self.candidate, kind=self.kind, folder=folder, crash=self.crash, make=self.make, called=self.called
        )

    def context(self) -> Context:
        return Context(
            state=self.state,
            run=self.run,
            instance=self.instance,
            log=logging.getLogger(f"wharfie.kit.{self.kind}"),
            host=self.host,
            emit=self.events.append,
        )

    def new(self) -> D:
        """A new instance on the folders, not open."""
        return self.watch(self.make(self.candidate, self.context()))

    def watch(self, driver: Driver[Any]) -> D:
        return cast(D, _Watched(driver, self))

    @contextmanager
    def opened(self) -> Iterator[D]:
        """A new instance, open, for a while."""
        driver = self.new()
        for problem in driver.check():
            if problem.fatal:
                raise NotTried(f"the driver cannot serve on this host: {problem.what}; {problem.fix}")
        driver.open()
        try:
            yield driver
        finally:
            if driver._open:  # type: ignore[attr-defined]  # of the watch; the rule itself may have closed it
                driver.close()

    def settle(self, left: Callable[[], T], *, seconds: float = 3.0) -> T:
        """What is left in the end: the first empty value of `left()`, or its last one when the time is over."""
        end = time.monotonic() + seconds
        while True:
            value = left()
            if not value or time.monotonic() >= end:
                return value
            time.sleep(0.01)


def raw(driver: Driver[Any]) -> Driver[Any]:
    """The instance itself, without the watch."""
    return driver._driver if isinstance(driver, _Watched) else driver
