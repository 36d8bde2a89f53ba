"""The driver's side: imports the driver, makes it, and serves the daemon's calls until the connection ends.

The main thread reads frames, so it notices the daemon's end at once and leaves by `os._exit`, whatever the driver's
threads do. Calls run in as many threads as the daemon has workers for this driver.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, TypeVar

from wharfie.plugins.contract import CONTRACTS, checked, methods
from wharfie.plugins.failure import describe
from wharfie.plugins.hooks import Hooks
from wharfie.plugins.inventory import HOOK, Entry, Finder, Inventory, core_version
from wharfie.plugins.loader import absent, check_class, choose, import_driver
from wharfie.plugins.remote import border
from wharfie.plugins.remote.border import Ready, Refused, Start, encode_error, encode_event, not_what_it_says, signatures
from wharfie.plugins.remote.codec import Cargo, Mismatch
from wharfie.plugins.remote.frames import Broken, Channel, Message, pack
from wharfie.plugins.settings import DriverSettings, schema, validate
from wharfie.plugins.states import Refusal, State
from wharfie.plugins.worker import Job, Pool
from wharfie.spi.call import Call, current_call, enter_call
from wharfie.spi.driver import Context, Driver, DriverEvent
from wharfie.spi.errors import DriverError, InvalidArgument, NotFound, Unsupported
from wharfie.spi.log import LogReader

D = TypeVar("D", bound=Driver[Any])

_PROGRESS = 0.5
"""Seconds between two reports that a stream moves."""


def serve(sock: socket.socket, wanted: str) -> None:
    """Be the process of the driver `wanted` (KIND.NAME). Does not return."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the daemon decides about the end
    _Host(Channel(sock)).run(wanted)


class _Host:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._early: list[tuple[Message, list[int]]] = []

    def run(self, wanted: str) -> None:
        start = border.START.decode(self._first()["start"], Cargo())
        if f"{start.kind}.{start.name}" != wanted:
            raise SystemExit(f"this process was started for {wanted}, not for {start.kind}.{start.name}")
        logging.basicConfig(level=start.level, handlers=[_ToDaemon(self)], force=True)
        try:
            driver = self._make(start)
        except Refusal as refusal:
            refused = Refused(state=refusal.state.value, cause=refusal.cause, remedy=refusal.remedy)
            if refusal.__cause__ is not None:
                logging.getLogger().error("%s", refusal.cause, exc_info=refusal.__cause__)
            self.send({"refused": border.REFUSED.encode(refused, Cargo())})
            os._exit(1)
        sink = getattr(type(driver), "sink", "")
        ready = Ready(spi=type(driver).spi, sink=sink if isinstance(sink, str) else "")
        self.send({"ready": border.READY.encode(ready, Cargo())})
        _Service(self, driver, CONTRACTS[start.kind], start.workers).run()

    def receive(self) -> list[tuple[Message, list[int]]]:
        """The next messages; ends the process with the daemon."""
        if self._early:
            early, self._early = self._early, []
            return early
        try:
            return self._channel.receive()
        except Broken:
            os._exit(0)

    def send(self, message: Message, cargo: Cargo | None = None) -> None:
        """Errors: InvalidArgument when it cannot be packed."""
        descriptors = cargo.descriptors if cargo else []
        packed = pack(message | {"descriptors": len(descriptors)} if descriptors else message)
        try:
            self._channel.send(packed, descriptors)
        except Broken:
            os._exit(0)

    def _first(self) -> Message:
        messages: list[tuple[Message, list[int]]] = []
        while not messages:
            messages = self.receive()
        self._early = messages[1:]
        return messages[0][0]

    def _make(self, start: Start) -> Driver[Any]:
        """Import, validate, construct: the steps that the daemon takes itself for a driver in a thread. Raises Refusal."""
        contract = CONTRACTS[start.kind]
        if start.finder is not None:
            entry, driver_class = _found(start, start.finder, contract)
        else:
            entry, driver_class = _installed(start, contract)
        try:
            own = validate(entry, driver_class, start.settings)
        except Refusal:
            raise
        except BaseException as error:  # the model is foreign code, too
            raise Refusal(
                State.MISCONFIGURED,
                f"the settings of {entry.title} cannot be read: {describe(error)}",
                f"Correct daemon.json, or ask the authors of {entry.distribution}",
            ) from error
        context = Context(
            state=start.state,
            run=start.run,
            instance=start.instance,
            log=logging.getLogger(f"wharfie.drivers.{start.kind}.{start.name}"),
            host=start.host,
            emit=self._emit,
        )
        try:
            return driver_class(context, own)
        except BaseException as error:  # a constructor may do anything, also sys.exit
            raise Refusal(
                State.BROKEN,
                f"{entry.title}: construction failed: {describe(error)}",
                f"Ask the authors of {entry.distribution}, or install another version of it",
            ) from error

    def _emit(self, event: DriverEvent) -> None:
        if not isinstance(event, DriverEvent):
            raise TypeError(f"emit takes a DriverEvent, not {type(event).__name__}")
        self.send(encode_event(event))


def _installed(start: Start, contract: type[D]) -> tuple[Entry, type[D]]:
    """By an entry point. Raises Refusal."""
    inventory = Inventory()
    found = inventory.find(start.kind, start.name)
    if not found:
        raise absent(start.kind, start.name, inventory.names(start.kind))
    entry = choose(start.kind, start.name, found, frozenset(), core_version())
    return entry, import_driver(entry, contract)


def _found(start: Start, finder: Finder, contract: type[D]) -> tuple[Entry, type[D]]:
    """By the hook plugin that found it in the daemon: it is loaded here, alone, and asked again. Raises Refusal."""
    inventory = Inventory()
    settings = DriverSettings(
        drivers={f"{start.kind}.{start.name}": finder.section},
        plugins={} if finder.settings is None else {finder.plugin: finder.settings},
        disabled=frozenset(inventory.names(HOOK)) - {finder.plugin},
    )
    hooks = Hooks(inventory, settings)
    try:
        found = asyncio.run(hooks.find_driver(start.kind, start.name))
    finally:
        hooks.close()
    if found is None:
        causes = [row.cause for row in hooks.states() if row.name == finder.plugin and row.cause]
        raise Refusal(
            State.FAILED,
            f'plugin "{finder.plugin}" does not find {start.kind} driver "{start.name}" in a process of its own'
            + "".join(f": {cause}" for cause in causes),
            'Take "isolate" out of the driver\'s settings, or ask the authors of the plugin',
        )
    entry, driver_class = found
    return entry, check_class(entry, contract, driver_class)


class _Service:
    """The calls."""

    def __init__(self, host: _Host, driver: Driver[Any], contract: type[Driver[Any]], workers: int) -> None:
        self.host = host
        self.driver = driver
        self.rules = methods(contract)
        self.signatures = signatures(contract)
        self.calls: dict[int, Call] = {}
        self.readers: dict[int, LogReader] = {}
        self._numbers = itertools.count(1)
        self._pool = Pool(f"{contract.kind}.{driver.name}", workers)

    def run(self) -> None:
        while True:
            for message, descriptors in self.host.receive():
                self._take(message, descriptors)

    def keep(self, reader: LogReader) -> int:
        number = next(self._numbers)
        self.readers[number] = reader
        return number

    def _take(self, message: Message, descriptors: list[int]) -> None:
        if "call" in message:
            task = _Task(self, message, descriptors)
            self.calls[message["call"]] = task.call
            self._pool.submit(task)
        elif (call := self.calls.get(message.get("cancel", 0))) is not None:
            call.cancelled.set()


class _Task(Job):
    """One call from the daemon."""

    def __init__(self, service: _Service, message: Message, descriptors: list[int]) -> None:
        super().__init__()
        self._service = service
        self._number: int = message["call"]
        self._method: str = message["method"]
        self._arguments: Mapping[str, Any] = message.get("arguments", {})
        self._descriptors = descriptors
        self.call = _HostedCall(message.get("trace", ""), self._number, service.host)

    def work(self) -> None:
        enter_call(self.call)
        self.call.moved = time.monotonic()
        cargo = Cargo(keep=self._service.keep)
        try:
            result = self._act(cargo)
        except BaseException as error:  # noqa: BLE001  # SystemExit, KeyboardInterrupt and StopIteration are values here
            self._fail(error)
            return
        try:
            self._service.host.send({"reply": self._number, "result": result}, cargo)
        except InvalidArgument as error:
            self._fail(not_what_it_says(self._method, error))

    def _fail(self, error: BaseException) -> None:
        try:
            answer = encode_error(error)
        except BaseException:  # noqa: BLE001  # the exception's own attributes are foreign code, too
            answer = encode_error(DriverError(f"{self._method} failed with an error that cannot be shown"))
        self._service.host.send({"reply": self._number, "error": answer})

    def finished(self) -> None:
        self._service.calls.pop(self._number, None)
        for descriptor in self._descriptors:
            os.close(descriptor)

    def _act(self, cargo: Cargo) -> Any:
        match self._method:
            case border.READ:
                entries = self._reader().read(self._arguments["limit"])
                return border.ENTRIES.encode(entries, cargo)
            case border.CLOSE_READER:
                reader = self._service.readers.pop(self._arguments["reader"], None)
                return reader.close() if reader is not None else None
            case border.SCHEMA:
                return schema(type(self._service.driver))
        signature = self._service.signatures.get(self._method)
        if signature is None:
            raise Unsupported(f"this core's contract has no method {self._method!r}")
        given = signature.decode(self._arguments, Cargo(self._descriptors))
        result = getattr(self._service.driver, self._method)(**given)
        rule = self._service.rules[self._method]
        result = checked(rule, result)
        try:
            return signature.result.encode(result, cargo) if rule.gives else None
        except Mismatch as error:
            raise not_what_it_says(self._method, error) from None

    def _reader(self) -> LogReader:
        reader = self._service.readers.get(self._arguments["reader"])
        if reader is None:
            raise NotFound("this log reader is closed")
        return reader


class _HostedCall(Call):
    """Tells the daemon now and then that its stream moves, so that the idle deadline there knows."""

    __slots__ = ("_host", "_lock", "_number", "_said")

    def __init__(self, trace: str, number: int, host: _Host) -> None:
        super().__init__(id=trace)
        self._host = host
        self._number = number
        self._said = 0.0
        self._lock = threading.Lock()

    def check(self) -> None:
        with self._lock:
            due = self.moved - self._said >= _PROGRESS
            self._said = self.moved if due else self._said
        if due:
            self._host.send({"progress": self._number})
        super().check()


class _ToDaemon(logging.Handler):
    """Records go to the daemon's log, with the call that they were written in."""

    def __init__(self, host: _Host) -> None:
        super().__init__()
        self._host = host

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001  # a driver's arguments may not fit its own format
            text = f"{record.msg} (its arguments do not fit)"
        call = current_call()
        self._host.send({"log": record.levelno, "text": f"call {call.id}: {text}" if call is not None else text})
