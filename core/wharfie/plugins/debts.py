"""Removals that failed and are owed: kept durably, tried again until the driver has done them.

Nothing that the user deletes waits for a driver that cannot remove it now. The engine calls removals through `settle`;
what fails is written down and tried at the start, each minute, and when the driver's circuit closes. Before the engine
makes an object whose name may be owed, it calls `pay`, so that a late removal never hits the new object.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from pydantic import TypeAdapter

from wharfie.plugins.contract import CONTRACTS, parameters
from wharfie.plugins.drivers import Drivers
from wharfie.plugins.failure import subject_of
from wharfie.spi.driver import Driver
from wharfie.spi.errors import Unavailable, WharfieError

D = TypeVar("D", bound=Driver[Any])
P = ParamSpec("P")

INTERVAL = 60.0
TABLE = "debts"

_LOG = logging.getLogger(__name__)


class DebtStore(Protocol):
    """Where debts are kept: a table of JSON documents by key. The daemon's metadata store is one."""

    def all(self, table: str) -> Mapping[str, str]:
        """Every document by key. Called once, at construction."""

    async def put(self, table: str, key: str, document: str) -> None:
        """Set a document; durable on return."""

    async def delete(self, table: str, key: str) -> None:
        """Remove a document; durable on return."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Debt:
    """One removal that is owed. `arguments`: the call's arguments by name, each as JSON."""

    id: str
    kind: str
    driver: str
    method: str
    object: str
    arguments: Mapping[str, str] = field(default_factory=dict)
    tries: int = 1
    error: str = ""


class Debts:
    """All debts of a daemon. Belongs to the event loop's thread."""

    def __init__(self, store: DebtStore, drivers: Drivers) -> None:
        self._store = store
        self._drivers = drivers
        self._debts = {key: Debt(**json.loads(document)) for key, document in store.all(TABLE).items()}
        self._locks: weakref.WeakValueDictionary[tuple[str, str, str], asyncio.Lock] = weakref.WeakValueDictionary()
        self._wake = asyncio.Event()
        drivers.on_recovery(lambda kind, name: self._wake.set())

    def __iter__(self) -> Iterator[Debt]:
        """The debts of this moment, oldest first."""
        return iter(tuple(self._debts.values()))

    async def settle(
        self, contract: type[D], driver: str, method: Callable[Concatenate[D, P], Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> bool:
        """Call a removal. True: it is done. False: it failed, and is owed from now on; the log says why.

        The driver need not be there at all. Errors: only those of the store.
        """
        bound = inspect.signature(method).bind(None, *args, **kwargs)
        given = dict(list(bound.arguments.items())[1:])
        types = parameters(contract, method.__name__)
        debt = Debt(
            id=uuid.uuid4().hex,
            kind=contract.kind,
            driver=driver,
            method=method.__name__,
            object=subject_of(tuple(given.values())),
            arguments={name: TypeAdapter(types[name]).dump_json(value).decode() for name, value in given.items()},
        )
        async with self._locked(debt):
            same = [one for one in self._debts.values() if _call_of(one) == _call_of(debt)]
            try:
                supervised = await self._drivers.get(contract, driver)
                await supervised.call(method, *args, **kwargs)
            except WharfieError as error:
                _LOG.warning("%s of %s %s is owed: %s", debt.method, debt.kind, debt.object, error.message)
                if not same:
                    await self._keep(replace(debt, error=error.message))
                return False
            for one in same:
                await self._forget(one)
            return True

    async def pay(self, contract: type[D], driver: str, object: str) -> None:
        """Pay what is owed for one object, now; before an object of this name is made again.

        Errors: Unavailable when it cannot be paid.
        """
        for debt in self._owed(contract.kind, driver, object):
            error = await self._try(debt)
            if error is not None:
                raise Unavailable(
                    f'{contract.kind} "{object}" cannot be made yet, the removal of an earlier one of this name '
                    f"still fails: {error.message}"
                )

    async def retry(self) -> None:
        """Try every debt once. A driver that hangs or cannot be had costs one try, not one for each of its debts."""
        given_up: set[tuple[str, str]] = set()
        for debt in tuple(self._debts.values()):
            if (debt.kind, debt.driver) in given_up:
                continue
            if isinstance(await self._try(debt), Unavailable):
                given_up.add((debt.kind, debt.driver))

    async def run(self) -> None:
        """Retry at once, then each minute and whenever a driver has recovered, until cancelled."""
        while True:
            self._wake.clear()
            try:
                await self.retry()
            except WharfieError as error:
                _LOG.error("the debts cannot be recorded: %s", error.message)
            try:
                await asyncio.wait_for(self._wake.wait(), INTERVAL)
            except TimeoutError:
                continue

    def _owed(self, kind: str, driver: str, object: str) -> Sequence[Debt]:
        wanted = (kind, driver, object)
        return [debt for debt in self._debts.values() if (debt.kind, debt.driver, debt.object) == wanted]

    async def _try(self, debt: Debt) -> WharfieError | None:
        async with self._locked(debt):
            current = self._debts.get(debt.id)
            if current is None:
                return None  # paid meanwhile
            try:
                contract = CONTRACTS[debt.kind]
                types = parameters(contract, debt.method)
                arguments = {name: TypeAdapter(types[name]).validate_json(text) for name, text in debt.arguments.items()}
                supervised = await self._drivers.get(contract, debt.driver)
                await supervised.call(getattr(contract, debt.method), **arguments)
            except WharfieError as error:
                await self._keep(replace(current, tries=current.tries + 1, error=error.message))
                return error
            _LOG.info("%s of %s %s is done after %d tries", debt.method, debt.kind, debt.object, current.tries + 1)
            await self._forget(debt)
            return None

    async def _keep(self, debt: Debt) -> None:
        self._debts[debt.id] = debt
        await self._store.put(TABLE, debt.id, json.dumps(asdict(debt)))

    async def _forget(self, debt: Debt) -> None:
        await self._store.delete(TABLE, debt.id)
        self._debts.pop(debt.id, None)

    def _locked(self, debt: Debt) -> AbstractAsyncContextManager[None]:
        """One call at a time for one object: its first removal, a retry, and `pay` must not meet."""
        return self._locks.setdefault((debt.kind, debt.driver, debt.object), asyncio.Lock())


def _call_of(debt: Debt) -> tuple[str, str, str, tuple[tuple[str, str], ...]]:
    return debt.kind, debt.driver, debt.method, tuple(sorted(debt.arguments.items()))
