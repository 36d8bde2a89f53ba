"""The front of this package: drivers by contract and name, loaded and opened on first use, one instance for the daemon."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from wharfie.plugins.contract import CONTRACTS, DEFAULT_DEADLINE
from wharfie.plugins.hooks import Hooks
from wharfie.plugins.inventory import HOOK, Entry, Inventory, core_version
from wharfie.plugins.loader import absent, check_class, choose, import_driver
from wharfie.plugins.opening import IMPORT, Opening
from wharfie.plugins.remote.keeper import Keeper
from wharfie.plugins.remote.proxy import proxy
from wharfie.plugins.remote.trial import Trial, try_out
from wharfie.plugins.settings import DriverSettings, Options, options, schema, validate
from wharfie.plugins.states import DriverState, Refusal, State
from wharfie.plugins.supervisor import Supervised, Supervisor
from wharfie.spi.call import current_call
from wharfie.spi.driver import Context, Driver, DriverEvent, HostFacts
from wharfie.spi.errors import Unavailable, WharfieError

D = TypeVar("D", bound=Driver[Any])

_LOG = logging.getLogger(__name__)
_LOADING_AT_THE_END = 5.0
"""Seconds that `close` gives a driver which is being opened; no container depends on it yet."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
"""A name becomes a folder, so it holds no slash."""


@dataclass(slots=True)
class _Slot:
    """What is known of one driver."""

    entry: Entry | None = None
    supervisor: Supervisor | None = None  # of the last attempt
    open: Supervised[Any] | None = None
    keeper: Keeper | None = None  # of a driver in a process of its own
    loading: asyncio.Task[Supervised[Any]] | None = None
    refusal: Refusal | None = None  # of the last attempt


class Drivers:
    """All drivers of a daemon. Belongs to the event loop's thread."""

    def __init__(self, settings: DriverSettings, *, state: Path, run: Path, instance: str, host: HostFacts) -> None:
        """`state`, `run`: folders under which each driver gets `<kind>/<name>`. `instance`: see `Context.instance`."""
        self._settings = settings
        self._state = state
        self._run = run
        self._instance = instance
        self._host = host
        self._inventory = Inventory()
        self._slots: dict[tuple[str, str], _Slot] = {}
        self._listeners: list[Callable[[str, str, DriverEvent], None]] = []
        self._recovery: list[Callable[[str, str], None]] = []
        self._restart: list[Callable[[str, str], Awaitable[None]]] = []
        self._dynamic: dict[str, Sequence[str]] = {}  # kind → names that hook plugins knew when they were last asked
        self._closed = False
        self.hooks = Hooks(self._inventory, settings)

    async def start(self) -> None:
        """Load the hook plugins and ask them which drivers they know. Opens no driver, raises nothing of theirs."""
        await self.hooks.load()
        for kind in CONTRACTS:
            self._dynamic[kind] = await self.hooks.known_drivers(kind)

    async def get(self, contract: type[D], name: str) -> Supervised[D]:
        """The driver, open. The first call imports and opens it; calls at the same time wait for that one; after a failure
        the next call tries again.

        Errors: NotFound (nobody offers this name; at once), Forbidden (disabled), Unavailable (anything else, with cause
        and remedy).
        """
        slot = self._slots.setdefault((contract.kind, name), _Slot())
        if slot.open is not None:
            return slot.open
        if self._closed:
            raise Unavailable(f'{contract.kind} driver "{name}": the daemon is ending')
        if slot.loading is None:
            slot.loading = asyncio.get_running_loop().create_task(self._load(contract, name, slot))
            slot.loading.add_done_callback(lambda task: self._loaded(slot, task))
        # Shielded: a caller that goes away must not spoil it for the others.
        return cast("Supervised[D]", await asyncio.shield(slot.loading))

    def loaded(self, contract: type[D]) -> Mapping[str, Supervised[D]]:
        """The open drivers of a kind by name."""
        return {
            name: slot.open for (kind, name), slot in self._slots.items() if kind == contract.kind and slot.open is not None
        }

    def known(self, contract: type[D]) -> Sequence[str]:
        """Names of a kind that may be asked for, sorted: installed, known to hook plugins when they were asked, open."""
        names = {*self._inventory.names(contract.kind), *self._dynamic.get(contract.kind, ()), *self.loaded(contract)}
        return sorted(name for name in names if f"{contract.kind}.{name}" not in self._settings.disabled)

    def listen(self, listener: Callable[[str, str, DriverEvent], None]) -> None:
        """Call `listener(kind, name, event)` for whatever drivers emit; always in the event loop's thread."""
        self._listeners.append(listener)

    def on_recovery(self, listener: Callable[[str, str], None]) -> None:
        """Call `listener(kind, name)` when a driver that kept failing answers again."""
        self._recovery.append(listener)

    def on_restart(self, listener: Callable[[str, str], Awaitable[None]]) -> None:
        """Await `listener(kind, name)` when a driver's own process was started again: it remembers nothing. Until the
        listener has returned, the driver answers only what the listener itself calls."""
        self._restart.append(listener)

    def states(self) -> Sequence[DriverState]:
        """A row for each driver and hook plugin that is installed, configured or was asked for; imports nothing."""
        entries = self._inventory.entries()
        keys = {key for key in entries if key[0] != HOOK} | set(self._slots)
        keys |= {(kind, name) for kind, _, name in (key.partition(".") for key in self._settings.drivers)}
        return [self._row(*key, entries.get(key, ())) for key in sorted(keys)] + list(self.hooks.states())

    async def look(self, kind: str, name: str) -> Refusal | Trial | Supervised[Any]:
        """A driver as it is: open, or tried out in a process of its own and ended again, or refused by its metadata and
        settings. Uses nobody's driver and changes nothing."""
        contract = CONTRACTS[kind]
        slot = self._slots.get((kind, name))
        if slot is not None and slot.open is not None:
            return slot.open
        try:
            entry, found = await self._choose(contract, name)
            chosen = options(self._settings, contract, name)
        except Refusal as refusal:
            return refusal
        if found is not None:
            return Trial(spi=found.spi)  # made at run time by a plugin: there is nothing that another process could load
        context = self._context(entry, quiet=True)
        return await asyncio.to_thread(try_out, entry, contract, context, chosen.own)

    async def schema(self, driver: Supervised[Any]) -> Mapping[str, Any] | None:
        """JSON Schema of an open driver's settings; None when it takes none. Errors: DriverError, Unavailable."""
        slot = self._slots.get((driver.kind, driver.name), _Slot())
        work = slot.keeper.schema if slot.keeper is not None else lambda: schema(driver.driver_class)
        return await driver.supervisor.run("settings", work, IMPORT, always=True)

    def leaks(self, kind: str, name: str) -> Sequence[str]:
        """Threads and descriptors that an open driver has kept, in words (`wharfie.plugins.leaks`)."""
        slot = self._slots.get((kind, name), _Slot())
        if slot.open is None:
            return ()
        return slot.keeper.leaks() if slot.keeper is not None else slot.open.supervisor.findings.leaks()

    def facts(self, kind: str, name: str) -> Mapping[str, Any]:
        """How a driver is run: `Isolated`, and its process's `Pid` and `Restarts`."""
        slot = self._slots.get((kind, name), _Slot())
        isolated = self._settings.drivers.get(f"{kind}.{name}", {}).get("isolate", False) is True
        keeper = slot.keeper
        return {"Isolated": isolated, "Pid": keeper.pid if keeper else 0, "Restarts": keeper.restarts if keeper else 0}

    def options(self, kind: str, name: str) -> Options:
        """A driver's settings taken apart, with the deadlines that hold. Raises Refusal (misconfigured)."""
        return options(self._settings, CONTRACTS[kind], name)

    def switch(self, key: str, *, on: bool) -> bool:
        """Disable or enable a driver ("volume.acme") or hook plugin from now on. True: that is done; False: it is in use,
        so it takes a restart of the daemon. Says nothing to daemon.json."""
        kind, _, name = key.partition(".")
        if kind not in CONTRACTS:  # a hook plugin: they are loaded once, at the start
            return on == (key not in self._settings.disabled)
        slot = self._slots.get((kind, name), _Slot())
        in_use = slot.open is not None or slot.loading is not None
        if in_use and not on:
            return False
        disabled = self._settings.disabled - {key} if on else self._settings.disabled | {key}
        self._settings = replace(self._settings, disabled=disabled)
        if not in_use:
            self._slots.pop((kind, name), None)
        return True

    async def close(self) -> None:
        """Close every open driver, all at the same time, each within its deadline. Failures are logged. Repeatable."""
        self._closed = True
        loading = [slot.loading for slot in self._slots.values() if slot.loading is not None]
        if loading:
            _, hanging = await asyncio.wait(loading, timeout=_LOADING_AT_THE_END)
            for task in hanging:
                task.cancel()
        await asyncio.gather(*(self._close(slot) for slot in self._slots.values()))
        self.hooks.close()

    async def _close(self, slot: _Slot) -> None:
        driver, slot.open = slot.open, None
        if driver is not None:
            try:
                await driver.call(Driver.close)
            except WharfieError as error:
                _LOG.error("%s", error.message)
        if slot.keeper is not None:
            await slot.keeper.close()
        if slot.supervisor is not None:
            slot.supervisor.close()

    # Loading

    async def _load(self, contract: type[D], name: str, slot: _Slot) -> Supervised[D]:
        try:
            slot.entry = slot.refusal = None
            entry, found = await self._choose(contract, name)
            slot.entry = entry
            slot.open = driver = await self._open(contract, entry, found, slot)
        except Refusal as refusal:
            if refusal.state is State.ABSENT:  # any client may ask for any name
                self._slots.pop((contract.kind, name), None)
            else:
                # What the metadata says is judged anew for `states`; what an attempt has shown holds until the next.
                slot.refusal = refusal if slot.entry else None
                refusal.log(_LOG)
            raise refusal.error() from None
        return driver

    def _loaded(self, slot: _Slot, task: asyncio.Task[Supervised[Any]]) -> None:
        slot.loading = None
        if not task.cancelled():
            task.exception()  # seen, also when every caller has gone

    async def _open(self, contract: type[D], entry: Entry, found: type[Driver[Any]] | None, slot: _Slot) -> Supervised[D]:
        chosen = options(self._settings, contract, entry.name)
        if slot.supervisor is not None and slot.supervisor.lost and not chosen.isolate:
            # Each further attempt would hang behind the first one's import lock and cost another deadline.
            raise Refusal(
                State.FAILED,
                f"{entry.title} still hangs in an earlier attempt to open it",
                "Restart the daemon to try again",
            )
        if slot.supervisor is not None:
            slot.supervisor.close()
        supervisor = Supervisor(entry, chosen.workers)
        slot.supervisor = supervisor
        opening = Opening(entry, supervisor)
        if chosen.isolate:
            return await self._open_isolated(contract, opening, chosen, slot)
        load = (lambda: check_class(entry, contract, found)) if found else (lambda: import_driver(entry, contract))
        driver_class: type[D] = await opening.step(State.BROKEN, "import", load, IMPORT)
        own = await opening.step(State.MISCONFIGURED, "settings", lambda: validate(entry, driver_class, chosen.own), IMPORT)
        context = self._context(entry)
        driver = await opening.step(State.BROKEN, "construction", lambda: driver_class(context, own), DEFAULT_DEADLINE)
        capabilities = await opening.enter(driver, contract, chosen)
        supervisor.on_recovery = lambda: self._recovered(entry.kind, entry.name)
        return Supervised(driver, contract, supervisor, chosen.methods, capabilities)

    async def _open_isolated(self, contract: type[D], opening: Opening, chosen: Options, slot: _Slot) -> Supervised[D]:
        entry, supervisor = opening.entry, opening.supervisor

        async def restarted() -> None:
            self._recovered(entry.kind, entry.name)
            await asyncio.gather(*(listener(entry.kind, entry.name) for listener in self._restart))

        keeper = Keeper(opening, contract, self._context(entry), chosen, restarted)
        ready, capabilities = await keeper.open()
        slot.keeper = keeper
        supervisor.on_recovery = lambda: self._recovered(entry.kind, entry.name)
        driver = proxy(contract, entry.name, ready, keeper.call)
        supervised = Supervised(driver, contract, supervisor, chosen.methods, capabilities)
        keeper.watch(supervised)
        return supervised

    async def _choose(self, contract: type[D], name: str) -> tuple[Entry, type[Driver[Any]] | None]:
        """Who is meant by this name: an entry point, otherwise what a hook plugin finds."""
        found = self._inventory.find(contract.kind, name)
        if found:
            return choose(contract.kind, name, found, self._settings.disabled, core_version()), None
        if _NAME.fullmatch(name) and f"{contract.kind}.{name}" not in self._settings.disabled:
            dynamic = await self.hooks.find_driver(contract.kind, name)
            if dynamic is not None:
                return dynamic
        self._dynamic[contract.kind] = await self.hooks.known_drivers(contract.kind)
        raise absent(contract.kind, name, self.known(contract))

    def _context(self, entry: Entry, *, quiet: bool = False) -> Context:
        """`quiet`: for a trial, whose events nobody wants."""
        try:
            return Context(
                state=_folder(self._state, entry),
                run=_folder(self._run, entry),
                instance=self._instance,
                log=_log(entry),
                host=self._host,
                emit=_ignore if quiet else self._emitter(entry),
            )
        except OSError as error:
            raise Refusal(
                State.FAILED, f"the folders of {entry.title} cannot be made: {error}", "Free or mend that file system"
            ) from error

    # Events

    def _emitter(self, entry: Entry) -> Callable[[DriverEvent], None]:
        loop = asyncio.get_running_loop()

        def emit(event: DriverEvent) -> None:
            if not isinstance(event, DriverEvent):
                raise TypeError(f"emit takes a DriverEvent, not {type(event).__name__}")
            try:
                loop.call_soon_threadsafe(self._dispatch, entry.kind, entry.name, event)
            except RuntimeError:
                return  # the daemon has ended; what happens now is found by reconcile at the next start

        return emit

    def _dispatch(self, kind: str, name: str, event: DriverEvent) -> None:
        for listener in self._listeners:
            try:
                listener(kind, name, event)
            except Exception:  # noqa: BLE001  # the others must still hear it
                _LOG.exception("a listener failed on %r of %s driver %s", event, kind, name)

    def _recovered(self, kind: str, name: str) -> None:
        for listener in self._recovery:
            listener(kind, name)

    # What is known

    def _row(self, kind: str, name: str, found: Sequence[Entry]) -> DriverState:
        slot = self._slots.get((kind, name), _Slot())
        entry = slot.entry or (found[0] if found else None)
        state, cause, remedy = self._judge(kind, name, slot, found)
        return DriverState(
            kind=kind,
            name=name,
            distribution=entry.distribution if entry else "",
            version=entry.version if entry else "",
            state=state,
            cause=cause,
            remedy=remedy,
        )

    def _judge(self, kind: str, name: str, slot: _Slot, found: Sequence[Entry]) -> tuple[State, str, str]:
        if slot.open is not None:
            circuit = slot.open.supervisor.circuit
            if slot.keeper is not None and slot.keeper.down:
                return State.FAILING, slot.keeper.down, "Its process is started again by itself"
            return (State.FAILING, circuit.cause, "It is probed again by itself") if circuit.open else (State.OPEN, "", "")
        if slot.loading is not None:
            return State.LOADED, "", ""
        try:
            if found:
                choose(kind, name, found, self._settings.disabled, core_version())
            elif slot.refusal is None and name not in self._dynamic.get(kind, ()):
                raise absent(kind, name, self._inventory.names(kind))
            if slot.refusal is not None:
                raise slot.refusal
        except Refusal as refusal:
            return refusal.state, refusal.cause, refusal.remedy
        return State.INSTALLED, "", ""


def _folder(root: Path, entry: Entry) -> Path:
    folder = root / entry.kind / entry.name
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.chmod(folder, 0o700)  # noqa: PTH101  # the mode of mkdir is subject to the umask, and an older folder may be open
    return folder


def _ignore(event: DriverEvent) -> None:
    """Whoever tries a driver wants none of its events."""


def _log(entry: Entry) -> logging.Logger:
    """The driver's logger: its records say in which call they were written."""
    logger = logging.getLogger(f"wharfie.drivers.{entry.kind}.{entry.name}")
    if not logger.filters:
        logger.addFilter(_with_call)
    return logger


def _with_call(record: logging.LogRecord) -> bool:
    call = current_call()
    if call is not None:
        record.msg = f"call {call.id}: {record.msg}"
    return True
