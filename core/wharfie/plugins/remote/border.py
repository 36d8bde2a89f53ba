"""What crosses the border between the daemon and a driver's process: calls, errors and events, as plain data.

Frames, all JSON objects; `descriptors` says how many come with one:

    daemon → driver   {"start": {…}}                            what the driver is made from
                      {"call": 7, "method": "mount", "arguments": {"name": "data", …}, "trace": "ab12-3f"}
                      {"cancel": 7}
    driver → daemon   {"ready": {…}} or {"refused": {…}}        after `start`
                      {"reply": 7, "result": …} or {"reply": 7, "error": {…}}
                      {"progress": 7}                           a stream moved
                      {"event": "Exited", "content": {…}}
                      {"log": 30, "text": "…"}

Methods are the contract's by name. A log reader stays in the driver's process: its descriptor comes over, and its reads
are calls of `LogReader.read`.
"""

from __future__ import annotations

import functools
import inspect
import traceback
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from wharfie.plugins.failure import describe
from wharfie.plugins.inventory import Finder
from wharfie.plugins.remote.codec import Cargo, Codec, Mismatch, codec
from wharfie.spi import errors
from wharfie.spi.driver import Driver, DriverEvent, HostFacts
from wharfie.spi.errors import DriverError, Unavailable, WharfieError
from wharfie.spi.log import LogEntry

READ = "LogReader.read"
CLOSE_READER = "LogReader.close"
SCHEMA = "settings.schema"
"""Asks for the JSON Schema of the driver's settings; null when it takes none."""
ENTRIES = codec(Sequence[LogEntry])


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a driver's process is told first. `level`: of the daemon's log for this driver. `finder`: see `Entry`."""

    kind: str
    name: str
    state: Path
    run: Path
    instance: str
    host: HostFacts
    settings: Mapping[str, Any]
    workers: int
    level: int
    finder: Finder | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What the daemon must know of the class. `sink`: see `LogDriver`."""

    spi: str
    sink: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The driver cannot be used: the fields of `wharfie.plugins.states.Refusal`."""

    state: str
    cause: str
    remedy: str


START = codec(Start)
READY = codec(Ready)
REFUSED = codec(Refused)


@dataclass(frozen=True, slots=True)
class Signature:
    """A method's arguments in order, and its result."""

    arguments: Mapping[str, Codec]
    result: Codec

    def encode(self, args: Sequence[Any], kwargs: Mapping[str, Any], cargo: Cargo) -> dict[str, Any]:
        """The arguments of a call by name. Errors: Mismatch."""
        given = dict(zip(self.arguments, args, strict=False)) | dict(kwargs)
        return {name: _named(name, self.arguments[name].encode, value, cargo) for name, value in given.items()}

    def decode(self, given: Mapping[str, Any], cargo: Cargo) -> dict[str, Any]:
        """The way back. Errors: Mismatch."""
        return {
            name: _named(name, self.arguments[name].decode, value, cargo)
            for name, value in given.items()
            if name in self.arguments
        }


def _named(name: str, convert: Any, value: Any, cargo: Cargo) -> Any:
    try:
        return convert(value, cargo)
    except Mismatch as error:
        raise Mismatch(f"{name}: {error}") from None


@functools.cache
def signatures(contract: type[Driver[Any]]) -> Mapping[str, Signature]:
    """All methods of a contract by name."""
    found = {}
    for name, function in inspect.getmembers(contract, inspect.isfunction):
        if name.startswith("_"):
            continue
        hints = {key: _bound(contract, hint) for key, hint in _hints(function).items()}
        result = codec(hints.pop("return", Any))
        found[name] = Signature({key: codec(hint) for key, hint in hints.items()}, result)
    return found


def _hints(function: Any) -> dict[str, Any]:
    return typing.get_type_hints(function, include_extras=True)


def _bound(contract: type[Driver[Any]], hint: Any) -> Any:
    """`frozenset[C]` with the contract's own enumeration for C."""
    if any(isinstance(one, TypeVar) for one in typing.get_args(hint)):
        # types.get_original_bases is of Python 3.12.
        [base] = [one for one in contract.__orig_bases__ if typing.get_origin(one) is Driver]  # type: ignore[attr-defined]
        return hint[typing.get_args(base)[0]]
    return hint


# Errors

_TAXONOMY: Mapping[str, type[WharfieError]] = {
    name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, WharfieError)
}


def encode_error(error: BaseException) -> dict[str, Any]:
    """An exception as data: those of the house by class, message and details, system calls by number, all others by name,
    text and traceback."""
    if isinstance(error, WharfieError):
        kind = next(one.__name__ for one in type(error).__mro__ if _TAXONOMY.get(one.__name__) is one)
        message, details = getattr(error, "message", None), getattr(error, "details", None)
        return {
            "class": kind,
            "message": message if isinstance(message, str) else describe(error),
            "details": {str(key): str(value) for key, value in details.items()} if isinstance(details, dict) else {},
            "retry_after": _number(getattr(error, "retry_after", None)),
        }
    text = {"class": type(error).__name__, "trace": "".join(traceback.format_exception(error))}
    if isinstance(error, NotImplementedError):
        return text | {"absent": True}
    if isinstance(error, OSError) and isinstance(error.errno, int):
        files = [None if name is None else str(name) for name in (error.filename, error.filename2)]
        return text | {"system": [error.errno, error.strerror or "", *files]}
    return text | {"text": describe(error).partition(": ")[2]}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def decode_error(data: Mapping[str, Any]) -> BaseException:
    """The way back: an exception that `wharfie.plugins.failure.explain` treats as it would have the original."""
    kind = _TAXONOMY.get(data["class"])
    if kind is not None and "message" in data:
        if issubclass(kind, Unavailable):
            return kind(data["message"], retry_after=data.get("retry_after"), details=data.get("details"))
        return kind(data["message"], details=data.get("details"))
    error: BaseException
    if data.get("absent"):
        error = NotImplementedError()
    elif "system" in data:
        number, text, filename, second = data["system"]
        error = OSError(number, text, filename, None, second)
    else:
        error = type(str(data["class"]), (Exception,), {})(data.get("text", ""))
    error.add_note(f"In the driver's process:\n{data.get('trace', '')}")
    return error


# Events


def encode_event(event: DriverEvent) -> dict[str, Any]:
    """Errors: TypeError for an event that the contracts do not have."""
    name = type(event).__name__
    if _events().get(name) is not type(event):
        raise TypeError(f"emit takes an event of the contracts, not {name}")
    return {"event": name, "content": codec(type(event)).encode(event, Cargo())}


def decode_event(data: Mapping[str, Any]) -> DriverEvent:
    """Errors: Mismatch."""
    kind = _events().get(data["event"])
    if kind is None:
        raise Mismatch(f"there is no event {data['event']!r}")
    event: DriverEvent = codec(kind).decode(data["content"], Cargo())
    return event


@functools.cache
def _events() -> Mapping[str, type[DriverEvent]]:
    known: list[type[DriverEvent]] = [DriverEvent, *DriverEvent.__subclasses__()]
    return {one.__name__: one for one in known if one.__module__.startswith("wharfie.spi.")}


def not_what_it_says(method: str, reason: object) -> DriverError:
    """A result that is of the right class, with something wrong in it."""
    return DriverError(f"{method} returned what its contract does not allow: {reason}")
