"""The rules of all kinds, and what a kind adds to have them tried: one object's whole life, and operations to kill."""

from __future__ import annotations

import inspect
import os
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from wharfie.kit import crash, leaks
from wharfie.kit.crash import Operation
from wharfie.kit.drivers import Factory, candidate
from wharfie.kit.rig import Rig, raw
from wharfie.kit.room import Outcome, run_apart
from wharfie.kit.rules import Group, NotOffered, NotTried, Rule, Violation, require, rule, succeeds
from wharfie.plugins.contract import CONTRACTS, methods
from wharfie.spi import SPI_VERSION
from wharfie.spi.driver import Driver, Problem

D = TypeVar("D", bound=Driver[Any])

SECONDS = 60.0
"""A rule that takes longer has failed; a crash campaign has ten times as long."""


class Contract(Generic[D]):
    """What the contracts of all kinds share. Authors derive from the contract of one kind, and set `driver`."""

    driver: ClassVar[str | Factory]
    """"KIND.NAME" of an installed driver, or a function that makes one from a Context."""
    settings: ClassVar[Mapping[str, Any]] = {}
    """The driver's part of daemon.json."""

    kind: ClassVar[str]
    needs_root: ClassVar[bool] = False
    sample: ClassVar[int] = 6
    """Kills of one operation when a sample is asked for."""
    abilities: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Capability → the optional methods that go with it."""

    # What a kind brings

    def life(self, rig: Rig[D], driver: D, number: int) -> None:
        """One object, the `number`-th, from its making to its removal, every method that fits on the way."""
        raise NotImplementedError

    def share(self, rig: Rig[D], driver: D, number: int) -> None:
        """What two callers may do with one object at a time (they are told apart by `number`); all of it repeatable."""
        raise NotImplementedError

    def shared(self, rig: Rig[D], driver: D) -> Callable[[], None]:
        """Make the object of `share`; what is returned verifies and removes it."""
        raise NotImplementedError

    def operations(self, rig: Rig[D]) -> Sequence[Operation[D]]:
        """Calls that change something outside the process, to be killed."""
        return ()

    def world(self, rig: Rig[D]) -> None:
        """Make what the driver finds on its host (a parent interface, a peer). Called in the room, before the driver."""

    def mark(self) -> str:
        """What the names of the control groups that the driver makes contain; empty: it makes none."""
        return ""

    @classmethod
    def tidy(cls) -> None:
        """Take away what a room's end does not (control groups)."""

    # The rules

    @rule(
        "The class says its name, and a contract version that this core offers.",
        methods="",
        here=True,
    )
    def test_drv_01(self, rig: Rig[D], driver: D) -> None:
        cls = type(raw(driver))
        name, spi = getattr(cls, "name", None), getattr(cls, "spi", None)
        require(isinstance(name, str) and name, f"{cls.__name__}.name is {name!r}")
        require(not rig.candidate.key or rig.candidate.key == f"{self.kind}.{name}", f"it calls itself {name!r}")
        major, _, minor = str(spi).partition(".")
        offered = SPI_VERSION.partition(".")
        require(
            major == offered[0] and minor.isdecimal() and int(minor) <= int(offered[2]),
            f"{cls.__name__}.spi is {spi!r}, this core offers {SPI_VERSION}",
        )

    @rule(
        "Methods take the contract's parameters, by position and by name, and are plain functions.",
        methods="",
        here=True,
    )
    def test_drv_02(self, rig: Rig[D], driver: D) -> None:
        contract = CONTRACTS[self.kind]
        for name in methods(contract):
            found = getattr(type(raw(driver)), name)
            require(
                not inspect.iscoroutinefunction(found) and not inspect.isgeneratorfunction(found),
                f"{name} is a coroutine or a generator",
            )
            wanted = inspect.signature(getattr(contract, name))
            own = inspect.signature(found)
            for parameter in wanted.parameters.values():
                require(
                    parameter.name in own.parameters or _takes_anything(own, parameter),
                    f"{name} has no parameter {parameter.name!r}",
                )
            extra = [
                one.name
                for one in own.parameters.values()
                if one.name not in wanted.parameters
                and one.default is inspect.Parameter.empty
                and one.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
            ]
            require(not extra, f"{name} wants more than the contract gives it: {', '.join(extra)}")

    @rule(
        "The constructor touches nothing: no files, threads, descriptors, processes.",
        group=Group.LEAKS,
        methods="",
        here=True,
    )
    def test_drv_03(self, rig: Rig[D], driver: D) -> None:
        fresh = rig.other_folders()
        before = leaks.snapshot(fresh.state, fresh.run)
        with leaks.files_outside(rig.scratch) as written:
            made = fresh.new()
            after = leaks.snapshot(fresh.state, fresh.run)
        del made
        require(not (new := leaks.more(before, after)), f"after construction {new}")
        require(not written, f"the constructor wrote {', '.join(sorted(written))}")

    @rule("check may be repeated before open, has no side effects, and tells problems with a remedy.", methods="check")
    def test_drv_04(self, rig: Rig[D], driver: D) -> None:
        fresh = rig.other_folders()
        made = fresh.new()
        made.check()
        before = leaks.snapshot(fresh.state, fresh.run)
        for _ in range(2):
            for problem in made.check():
                require(isinstance(problem, Problem), f"check returned {problem!r}, which is no Problem")
                require(problem.what.strip() and problem.fix.strip(), f"a problem without cause or remedy: {problem!r}")
        require(not (new := leaks.more(before, leaks.snapshot(fresh.state, fresh.run))), f"after check {new}")

    @rule("After open, probe does not raise; it may be repeated.", methods="open probe")
    def test_drv_05(self, rig: Rig[D], driver: D) -> None:
        for _ in range(3):
            with succeeds("probe of an open driver"):
                driver.probe()

    @rule("status gives rows of two texts.", methods="status")
    def test_drv_06(self, rig: Rig[D], driver: D) -> None:
        for row in driver.status():
            right = isinstance(row, tuple) and len(row) == 2 and all(isinstance(text, str) for text in row)
            require(right, f"status has the row {row!r}, which is no pair of texts")

    @rule(
        "open serves again after close, in the same instance and in a new one on the same folders.",
        group=Group.REPETITION,
        methods="open close",
    )
    def test_drv_07(self, rig: Rig[D], driver: D) -> None:
        other = rig.other_folders()
        for _ in range(2):
            made = other.new()
            for _ in range(2):
                with succeeds("open after a close"):
                    made.open()
                self.life(other, made, 1)
                with succeeds("close"):
                    made.close()

    @rule("open meets the folders of a predecessor that never closed.", group=Group.ORDER, methods="open")
    def test_drv_08(self, rig: Rig[D], driver: D) -> None:
        other = rig.other_folders()
        nothing: Operation[D] = Operation(
            name="open", before=_nothing, run=_nothing, repair=_nothing, verify=_nothing, undo=_nothing
        )
        killed = crash.in_child(lambda: _open(other), nothing)
        require(not killed.failure, f"open failed in a child process: {killed.failure}")
        with succeeds("open after the process of the first instance was killed"), other.opened() as second:
            self.life(other, second, 1)

    @rule("close may be repeated, and needs no open before it.", group=Group.REPETITION, methods="close")
    def test_drv_09(self, rig: Rig[D], driver: D) -> None:
        made = rig.other_folders().new()
        with succeeds("close of a driver that was never opened"):
            made.close()
        other = rig.other_folders()
        with other.opened() as made, succeeds("a second close"):
            made.close()

    @rule(
        "Capabilities are members of the kind's enumeration, and the same from open to close.",
        group=Group.CAPABILITIES,
        methods="capabilities",
    )
    def test_drv_10(self, rig: Rig[D], driver: D) -> None:
        first = driver.capabilities()
        self.life(rig, driver, 1)
        require(driver.capabilities() == first, f"capabilities changed from {set(first)} to {set(driver.capabilities())}")
        known = self.known_capabilities()
        for one in first:
            require(isinstance(one, known), f"{one!r} is no {known.__name__}")

    @rule(
        "What a capability promises is implemented: its methods are the driver's own.",
        group=Group.CAPABILITIES,
        methods="capabilities",
        here=True,
    )
    def test_drv_11(self, rig: Rig[D], driver: D) -> None:
        declared = driver.capabilities()
        for ability, names in self.abilities.items():
            for name in names:
                if ability in declared:
                    require(self._own(driver, name), f"capability {ability!r} is declared, and {name} is not implemented")

    @rule(
        "What is implemented is declared: an optional method comes with its capability.",
        group=Group.CAPABILITIES,
        methods="capabilities",
        here=True,
    )
    def test_drv_12(self, rig: Rig[D], driver: D) -> None:
        declared = driver.capabilities()
        for ability, names in self.abilities.items():
            for name in names:
                if ability not in declared:
                    require(
                        not self._own(driver, name), f"{name} is implemented, and capability {ability!r} is not declared"
                    )

    @rule("On an idle host each method takes less than a tenth of its deadline.", group=Group.DEADLINES, methods="")
    def test_drv_13(self, rig: Rig[D], driver: D) -> None:
        late: dict[str, str] = {}
        for attempt in range(3):  # the host may not be idle: the best of three counts
            rig.slowest.clear()
            other = rig.other_folders()
            other.slowest = rig.slowest
            with other.opened() as made:
                self.life(other, made, attempt)
                made.probe()
            late = {
                name: f"{name} took {seconds:.2f} s, a tenth of its deadline is {limit / 10:g} s"
                for name, seconds in rig.slowest.items()
                if (limit := rig.methods[name].deadline.total or rig.methods[name].deadline.idle or 0)
                and seconds > limit / 10
            }
            if not late:
                return
        raise Violation("; ".join(late.values()))

    @rule(
        "All that was made is gone in the end: mounts, interfaces, firewall rules, descriptors, threads, processes, files.",
        group=Group.LEAKS,
        methods="close",
    )
    def test_drv_14(self, rig: Rig[D], driver: D) -> None:
        other = rig.other_folders()
        for _ in range(2):  # twice: what a library keeps after its first use is no leak
            with other.opened() as made:
                self.life(other, made, 1)
        before = leaks.snapshot(other.state, other.run, mark=self.mark())
        for _ in range(2):
            with other.opened() as made:
                for number in range(3):
                    self.life(other, made, number)
        new = rig.settle(lambda: leaks.more(before, leaks.snapshot(other.state, other.run, mark=self.mark())))
        require(not new, f"after close {new}")

    @rule(
        "The driver writes nowhere but in its state and run folders and in what a call names.",
        group=Group.LEAKS,
        methods="",
        here=True,
    )
    def test_drv_15(self, rig: Rig[D], driver: D) -> None:
        folders = home, temporary, working = [rig.scratch / name for name in ("home", "tmp", "working")]
        for folder in folders:
            folder.mkdir()
        os.chdir(working)
        os.environ["HOME"] = str(home)
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
        with leaks.files_outside(rig.folder) as written:
            other = rig.other_folders()
            with other.opened() as made:
                self.life(other, made, 1)
        left = [str(path) for folder in folders for path in folder.iterdir()]
        require(not written and not left, f"it wrote {', '.join(sorted(written) + left)}")

    @rule("Eight threads work on eight objects at a time.", group=Group.CONCURRENCY, methods="")
    def test_drv_16(self, rig: Rig[D], driver: D) -> None:
        _together(8, lambda number: self.life(rig, driver, number))

    @rule(
        "Two calls for one object at a time (a call that was given up still runs) leave it whole.",
        group=Group.CONCURRENCY,
        methods="",
    )
    def test_drv_17(self, rig: Rig[D], driver: D) -> None:
        for _ in range(4):
            finish = self.shared(rig, driver)
            _together(2, lambda number: self.share(rig, driver, number))
            finish()

    @rule(
        "Killed at any line of an operation, a new instance repeats it alike, and nothing is left behind.",
        group=Group.CRASH,
        methods="",
        here=True,
    )
    def test_drv_18(self, rig: Rig[D], driver: D) -> None:
        if rig.crash == "none":
            raise NotTried("crash injection is switched off (--wharfie-crash=none)")
        self._campaign(rig, at_lines=True)

    @rule(
        "Killed at a random instant of an operation, a new instance repeats it alike, and nothing is left behind.",
        group=Group.CRASH,
        methods="",
        here=True,
    )
    def test_drv_19(self, rig: Rig[D], driver: D) -> None:
        if rig.crash == "none":
            raise NotTried("crash injection is switched off (--wharfie-crash=none)")
        self._campaign(rig, at_lines=False)

    # How a rule is run

    @classmethod
    def try_rule(cls, made: Rule, *, crash: str = "sample", make: Callable[..., Driver[Any]] | None = None) -> Outcome:
        """Run one rule in a room of its own. The outcome's value is (title of the driver, names of methods called)."""
        root = os.geteuid() == 0
        if cls.needs_root and not root:
            return Outcome(status="not tried", message="it needs root, for namespaces of its own")
        methods(CONTRACTS[cls.kind])  # kept for all rooms
        seconds = SECONDS * (10 if made.group is Group.CRASH else 1)
        try:
            with tempfile.TemporaryDirectory(prefix="wharfie-kit-", ignore_cleanup_errors=True) as folder:
                return run_apart(lambda: cls()._try(made, Path(folder), crash, make), seconds=seconds, namespaces=root)
        finally:
            cls.tidy()

    def _try(
        self, made: Rule, folder: Path, crash: str, make: Callable[..., Driver[Any]] | None
    ) -> tuple[str, frozenset[str]]:
        os.chdir(folder)
        found = candidate(self.kind, type(self).driver, self.settings, type(self).__name__)
        rig: Rig[D] = Rig(candidate=found, kind=self.kind, folder=folder, crash=crash)
        if make is not None:
            rig.make = make
        self.world(rig)
        with rig.opened() as driver:
            if made.capability and made.capability not in driver.capabilities():
                raise NotOffered(f"capability {made.capability!r}")
            if made.needs and not getattr(self, made.needs):
                raise NotOffered(f"the test class does not set {made.needs}")
            made.function(self, rig, driver)
        return found.title, frozenset(rig.called)

    @classmethod
    def known_capabilities(cls) -> type:
        """The kind's enumeration, from the base `Driver[…]` of its contract."""
        [base] = CONTRACTS[cls.kind].__orig_bases__  # type: ignore[attr-defined]  # of a generic class
        found: type = base.__args__[0]
        return found

    def _own(self, driver: D, name: str) -> bool:
        return getattr(type(raw(driver)), name) is not getattr(CONTRACTS[self.kind], name)

    def _campaign(self, rig: Rig[D], *, at_lines: bool) -> None:
        if not (operations := self.operations(rig)):
            raise NotOffered("this kind has no operation that outlives a process")
        with (reference := rig.other_folders()).opened() as driver:
            self.life(reference, driver, 1)  # what a driver makes on first use, and keeps, is no leak
            self._pristine = self._kernel(reference)
        for operation in operations:
            rehearsal = self._kill(rig, operation, at_line=0 if at_lines else -1)
            for again in (True, False):
                if at_lines:
                    for line in crash.lines_to_kill(rehearsal.lines or 0, rig.crash, self.sample):
                        self._kill(rig, operation, at_line=line, again=again)
                else:
                    for after in crash.instants(rehearsal.took, rig.crash):
                        self._kill(rig, operation, at_line=-1, after=after, again=again)

    def _kernel(self, rig: Rig[D]) -> Mapping[str, frozenset[str]]:
        return leaks.anywhere(
            leaks.kernel(rig.state, rig.run, mark=self.mark()), FOLDER=str(rig.folder), INSTANCE=rig.instance
        )

    def _kill(
        self, rig: Rig[D], operation: Operation[D], *, at_line: int, after: float = -1.0, again: bool = True
    ) -> crash.Killed:
        """Kill, then a new instance, and the core repeats the call (`again`), or takes everything back."""
        other = rig.other_folders()
        killed = crash.in_child(lambda: _open(other), operation, at_line=at_line, after=after)
        moment = killed.where or ("its end" if after < 0 else f"{after:.4f} s")
        where = f"{operation.name} killed at {moment}"
        require(not killed.failure, f"{operation.name} failed in a child process: {killed.failure}")
        with succeeds(f"opening a new instance after {where}"), other.opened() as driver:
            with succeeds(f"reconcile after {where}"):
                operation.repair(driver, killed.memo)
            if again:
                with succeeds(f"{operation.name} again after {where}"):
                    operation.run(driver, killed.memo)
                try:
                    operation.verify(driver, killed.memo)
                except Exception as error:
                    raise Violation(f"after {where} and {operation.name} again: {error}") from error
            with succeeds(f"taking everything back after {where}"):
                operation.undo(driver, killed.memo)
            # While it is open: a driver may sweep what its predecessor left at its leisure.
            new = rig.settle(lambda: leaks.more(self._pristine, self._kernel(other)), seconds=3)
            require(not new, f"after {where}, {'repetition' if again else 'reconcile'} and removal {new}")
        return killed


def _open(rig: Rig[D]) -> D:
    driver = rig.new()
    driver.open()
    return driver


def _nothing(*arguments: object) -> None:
    pass


def _takes_anything(own: inspect.Signature, parameter: inspect.Parameter) -> bool:
    kind = inspect.Parameter.VAR_KEYWORD if parameter.kind is parameter.KEYWORD_ONLY else inspect.Parameter.VAR_POSITIONAL
    return any(one.kind is kind for one in own.parameters.values())


def _together(threads: int, work: Callable[[int], None]) -> None:
    """`work(0)` … `work(threads - 1)` in threads that begin at one moment. Raises the first failure."""
    failures: list[BaseException] = []
    begin = threading.Barrier(threads)

    def run(number: int) -> None:
        try:
            begin.wait()
            work(number)
        except BaseException as failure:  # noqa: BLE001 - raised below, by the thread that asked
            failures.append(failure)

    workers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for failure in failures:
        if isinstance(failure, Violation | NotOffered | NotTried):
            raise failure
        raise Violation(f"with {threads} threads: {type(failure).__name__}: {failure}") from failure
