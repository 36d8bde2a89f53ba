"""Values of the contracts as JSON and back, by their type hints.

A codec is made once for each hint. Both sides use it: the one that sends checks what it is given, the one that receives
checks what it got, so a value that is not what the contract says fails at the border, with the place named.
"""

from __future__ import annotations

import base64
import binascii
import enum
import functools
import os
import socket
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from pathlib import Path, PurePath
from typing import Any, Literal

from wharfie.spi.driver import FileDescriptor
from wharfie.spi.log import LogReader

_TEXTUAL: Sequence[type] = (
    IPv4Address,
    IPv6Address,
    IPv4Interface,
    IPv6Interface,
    IPv4Network,
    IPv6Network,
)
"""Classes whose `str` is read by their constructor."""


class Mismatch(ValueError):
    """A value is not what its hint says."""


@dataclass(slots=True)
class Cargo:
    """What travels beside the JSON of one message: descriptors, and log readers that stay where they are."""

    descriptors: list[int] = field(default_factory=list)
    keep: Callable[[LogReader], int] | None = None  # sending: the reader's number
    adopt: Callable[[int, int], LogReader] | None = None  # receiving: a reader from its number and descriptor

    def add(self, descriptor: int) -> int:
        """Send a descriptor along; its place."""
        self.descriptors.append(descriptor)
        return len(self.descriptors) - 1

    def take(self, place: Any) -> int:
        """The received descriptor at a place."""
        if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < len(self.descriptors):
            raise Mismatch(f"there is no descriptor {place!r}")
        return self.descriptors[place]


Convert = Callable[[Any, Cargo], Any]


@dataclass(frozen=True, slots=True)
class Codec:
    """`encode` to JSON's types, `decode` back. Both raise Mismatch."""

    encode: Convert
    decode: Convert


def codec(hint: Any) -> Codec:
    """The codec of a type hint. Errors: TypeError for a hint that no contract should use."""
    return _codec(hint)


@functools.cache
def _codec(hint: Any) -> Codec:
    if hint == FileDescriptor:
        return Codec(_encode_descriptor, lambda value, cargo: cargo.take(value))
    if hint is Any or hint is object:
        return Codec(_as_it_is, _as_it_is)
    if hint is None or hint is type(None):
        return Codec(_nothing, _nothing)
    origin = typing.get_origin(hint)
    if origin is None:
        return _of_class(hint)
    arguments = typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _union(hint, [codec(one) for one in sorted(arguments, key=lambda one: one is not type(None))])
    if origin is Literal:
        return _literal(arguments)
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        return _fixed(arguments)
    if origin in (tuple, list, Sequence, set, frozenset):
        made = {Sequence: list}.get(origin, origin)
        accepted = Collection if origin in (set, frozenset) else Sequence
        return _items(made, accepted, codec(arguments[0]))
    if origin in (dict, Mapping):
        if arguments[0] is not str:
            raise TypeError(f"{hint}: the keys of a mapping must be strings")
        return _mapping(codec(arguments[1]))
    raise TypeError(f"{hint} cannot cross a process border")


def _of_class(hint: Any) -> Codec:
    if hint is LogReader:
        return Codec(_encode_reader, _decode_reader)
    if hint is socket.socket:
        return Codec(_encode_socket, lambda value, cargo: socket.socket(fileno=os.dup(cargo.take(value))))
    if hint is bytes:
        return Codec(_encode_bytes, _decode_bytes)
    if hint is Path:
        return Codec(_encode_path, lambda value, cargo: Path(_expect(str, value)))
    if hint is float:
        return Codec(_number, _number)
    if hint is bool or hint is int or hint is str:
        same = _plain(hint)
        return Codec(same, same)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _enumeration(hint)
    if hint in _TEXTUAL:
        return _textual(hint)
    if isinstance(hint, type) and is_dataclass(hint):
        return _record(hint)
    raise TypeError(f"{hint} cannot cross a process border")


def _expect(kind: type | tuple[type, ...], value: Any) -> Any:
    if not isinstance(value, kind):
        name = kind.__name__ if isinstance(kind, type) else " or ".join(one.__name__ for one in kind)
        raise Mismatch(f"expected {name}, not {type(value).__name__}")
    return value


def _as_it_is(value: Any, cargo: Cargo) -> Any:
    return value


def _nothing(value: Any, cargo: Cargo) -> None:
    if value is not None:
        raise Mismatch(f"expected nothing, not {type(value).__name__}")


def _plain(kind: type) -> Convert:
    def convert(value: Any, cargo: Cargo) -> Any:
        if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return value
        raise Mismatch(f"expected {kind.__name__}, not {type(value).__name__}")

    return convert


def _number(value: Any, cargo: Cargo) -> float:
    return float(_expect((int, float), value))


def _encode_descriptor(value: Any, cargo: Cargo) -> int:
    return cargo.add(_expect(int, value))


def _encode_socket(value: Any, cargo: Cargo) -> int:
    return cargo.add(_expect(socket.socket, value).fileno())


def _encode_reader(value: Any, cargo: Cargo) -> list[int]:
    if cargo.keep is None or any(not callable(getattr(value, name, None)) for name in ("fileno", "read", "close")):
        raise Mismatch(f"expected LogReader, not {type(value).__name__}")
    return [cargo.keep(value), cargo.add(_expect(int, value.fileno()))]


def _decode_reader(value: Any, cargo: Cargo) -> LogReader:
    number, place = _pair(value)
    if cargo.adopt is None:
        raise Mismatch("no log reader is expected here")
    return cargo.adopt(_expect(int, number), cargo.take(place))


def _pair(value: Any) -> tuple[Any, Any]:
    if not isinstance(value, list) or len(value) != 2:
        raise Mismatch("expected a pair")
    return value[0], value[1]


def _encode_bytes(value: Any, cargo: Cargo) -> str:
    return base64.b64encode(_expect((bytes, bytearray, memoryview), value)).decode()


def _decode_bytes(value: Any, cargo: Cargo) -> bytes:
    try:
        return base64.b64decode(_expect(str, value), validate=True)
    except binascii.Error as error:
        raise Mismatch(f"expected base64: {error}") from None


def _encode_path(value: Any, cargo: Cargo) -> str:
    return str(_expect(PurePath, value))


def _textual(kind: type) -> Codec:
    def decode(value: Any, cargo: Cargo) -> Any:
        try:
            return kind(_expect(str, value))
        except ValueError as error:
            raise Mismatch(str(error)) from None

    # An interface is a kind of address, and is none here.
    def encode(value: Any, cargo: Cargo) -> str:
        if type(value) is not kind:
            raise Mismatch(f"expected {kind.__name__}, not {type(value).__name__}")
        return str(value)

    return Codec(encode, decode)


def _enumeration(kind: type[enum.Enum]) -> Codec:
    def decode(value: Any, cargo: Cargo) -> Any:
        try:
            return kind(value)
        except ValueError as error:
            raise Mismatch(str(error)) from None

    return Codec(lambda value, cargo: _expect(kind, value).value, decode)


def _literal(values: Collection[Any]) -> Codec:
    def check(value: Any, cargo: Cargo) -> Any:
        if value not in values:
            raise Mismatch(f"expected one of {', '.join(map(repr, values))}, not {value!r}")
        return value

    return Codec(check, check)


def _union(hint: Any, options: Sequence[Codec]) -> Codec:
    """The first that fits."""

    def attempt(convert: Sequence[Convert], value: Any, cargo: Cargo) -> Any:
        reasons = []
        for one in convert:
            try:
                return one(value, cargo)
            except Mismatch as error:
                reasons.append(str(error))
        raise Mismatch(reasons[-1] if len(reasons) <= 2 else f"expected {hint}, not {type(value).__name__}")

    encoders, decoders = [one.encode for one in options], [one.decode for one in options]
    return Codec(lambda value, cargo: attempt(encoders, value, cargo), lambda value, cargo: attempt(decoders, value, cargo))


def _items(made: Callable[[Any], Any], accepted: Any, item: Codec) -> Codec:
    def encode(value: Any, cargo: Cargo) -> list[Any]:
        if not isinstance(value, accepted) or isinstance(value, str | bytes):
            raise Mismatch(f"expected {accepted.__name__}, not {type(value).__name__}")
        return [item.encode(one, cargo) for one in value]

    def decode(value: Any, cargo: Cargo) -> Any:
        return made([item.decode(one, cargo) for one in _expect(list, value)])

    return Codec(encode, decode)


def _fixed(hints: Sequence[Any]) -> Codec:
    codecs = [codec(hint) for hint in hints]

    def encode(value: Any, cargo: Cargo) -> list[Any]:
        if not isinstance(value, tuple | list) or len(value) != len(codecs):
            raise Mismatch(f"expected {len(codecs)} items")
        return [one.encode(item, cargo) for one, item in zip(codecs, value, strict=True)]

    def decode(value: Any, cargo: Cargo) -> Any:
        if len(_expect(list, value)) != len(codecs):
            raise Mismatch(f"expected {len(codecs)} items")
        return tuple(one.decode(item, cargo) for one, item in zip(codecs, value, strict=True))

    return Codec(encode, decode)


def _mapping(values: Codec) -> Codec:
    def encode(value: Any, cargo: Cargo) -> dict[str, Any]:
        return {
            _expect(str, key): _within(key, values.encode, item, cargo) for key, item in _expect(Mapping, value).items()
        }

    def decode(value: Any, cargo: Cargo) -> dict[str, Any]:
        return {key: _within(key, values.decode, item, cargo) for key, item in _expect(dict, value).items()}

    return Codec(encode, decode)


def _record(kind: type) -> Codec:
    """A dataclass by the names of its fields. One that is unknown here is passed over, one that is missing has its default:
    after an upgrade of the package the two sides may be of two versions."""
    hints = typing.get_type_hints(kind, include_extras=True)
    parts = [(one.name, codec(hints[one.name])) for one in fields(kind) if one.init]
    needed = {one.name for one in fields(kind) if one.init and one.default is MISSING and one.default_factory is MISSING}

    def encode(value: Any, cargo: Cargo) -> dict[str, Any]:
        _expect(kind, value)
        return {name: _within(name, part.encode, getattr(value, name), cargo) for name, part in parts}

    def decode(value: Any, cargo: Cargo) -> Any:
        _expect(dict, value)
        if missing := needed - value.keys():
            raise Mismatch(f"{kind.__name__} lacks {', '.join(sorted(missing))}")
        return kind(**{name: _within(name, part.decode, value[name], cargo) for name, part in parts if name in value})

    return Codec(encode, decode)


def _within(name: str, convert: Convert, value: Any, cargo: Cargo) -> Any:
    try:
        return convert(value, cargo)
    except Mismatch as error:
        raise Mismatch(f"{name}: {error}") from None
