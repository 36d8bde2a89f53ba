"""Calls over the system's D-Bus, as far as firewalld's interface needs them (D-Bus specification 0.42).

A connection each time: it takes under a millisecond, and there is none to lose when the bus is started again.
"""

from __future__ import annotations

import os
import socket
import struct
from types import TracebackType
from typing import Any

SOCKET = "/run/dbus/system_bus_socket"
_PATIENCE = 5.0
"""Seconds for an answer: firewalld answers nobody while it reloads."""
_CALL, _RETURN, _ERROR = 1, 2, 3
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8
_HEAD = struct.Struct("<cBBBIII")  # byte order, type, flags, version, length of the body, serial, length of the fields
_LARGEST = 1 << 27


class BusError(Exception):
    """What was called answered with an error. `name`: the error's, such as org.freedesktop.DBus.Error.AccessDenied."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}" if message else name)
        self.name = name


class SystemBus:
    """A connection as root. Not to be shared by threads."""

    def __init__(self, path: str = SOCKET) -> None:
        """Errors: OSError (there is no bus, or it does not answer), BusError."""
        self._serial = 0
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(_PATIENCE)
            self._socket.connect(path)
            self._socket.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
            if not self._line().startswith(b"OK "):
                raise BusError("org.freedesktop.DBus.Error.AuthFailed", f"the bus at {path} does not know this user")
            self._socket.sendall(b"BEGIN\r\n")
            self.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello")
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> SystemBus:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()

    def call(self, destination: str, path: str, interface: str, member: str, *words: str) -> list[Any]:
        """Call a method whose arguments are strings; what it returns. Errors: BusError, OSError."""
        self._serial += 1
        body = _Writer()
        for word in words:
            body.string(word)
        fields = _Writer()
        for code, kind, text in (
            (_PATH, "o", path),
            (_INTERFACE, "s", interface),
            (_MEMBER, "s", member),
            (_DESTINATION, "s", destination),
            (_SIGNATURE, "g", "s" * len(words)),
        ):
            fields.align(8)
            fields.data += bytes([code])
            fields.signature(kind)
            (fields.signature if kind == "g" else fields.string)(text)
        length = len(fields.data)
        fields.align(8)
        head = _HEAD.pack(b"l", _CALL, 0, 1, len(body.data), self._serial, length)
        self._socket.sendall(head + fields.data + body.data)
        while True:
            answered, values, error = self._message()
            if answered == self._serial:
                if error:
                    raise BusError(error, str(values[0]) if values else "")
                return values

    def _message(self) -> tuple[int, list[Any], str]:
        """To which call it is the answer (0: it is a signal), what it carries, and the name of an error."""
        head = self._take(_HEAD.size)
        order = "<" if head[:1] == b"l" else ">"
        kind = head[1]
        size, _, length = struct.unpack_from(f"{order}III", head, 4)
        if length + size > _LARGEST:
            raise OSError(f"the system's bus tells of a message of {length + size} bytes")
        rest = self._take(-(-length // 8) * 8 + size)
        fields: dict[int, Any] = {}
        reader = _Reader(rest[:length], order)
        while reader.place < length:
            reader.align(8)
            code = reader.byte()
            fields[code] = reader.value("v")
        values = _Reader(rest[-(-length // 8) * 8 :], order).values(fields.get(_SIGNATURE, ""))
        if kind not in (_RETURN, _ERROR):
            return 0, [], ""
        return fields[_REPLY_SERIAL], values, fields[_ERROR_NAME] if kind == _ERROR else ""

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._more()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._more()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def _more(self) -> None:
        data = self._socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the system's bus ended the connection")
        self._buffer += data


class _Writer:
    """Values in the little-endian order."""

    def __init__(self) -> None:
        self.data = b""

    def align(self, size: int) -> None:
        self.data += bytes(-len(self.data) % size)

    def string(self, text: str) -> None:
        self.align(4)
        encoded = text.encode()
        self.data += struct.pack("<I", len(encoded)) + encoded + b"\0"

    def signature(self, text: str) -> None:
        self.data += bytes([len(text)]) + text.encode() + b"\0"


class _Reader:
    """Values of a message or of its header; alignment counts from the beginning of either."""

    def __init__(self, data: bytes, order: str) -> None:
        self._data = data
        self._order = order
        self.place = 0

    def align(self, size: int) -> None:
        self.place += -self.place % size

    def byte(self) -> int:
        self.place += 1
        return self._data[self.place - 1]

    def number(self) -> int:
        self.align(4)
        (value,) = struct.unpack_from(f"{self._order}I", self._data, self.place)
        self.place += 4
        return int(value)

    def values(self, signature: str) -> list[Any]:
        found = []
        while signature:
            first = _first(signature)
            found.append(self.value(first))
            signature = signature[len(first) :]
        return found

    def value(self, signature: str) -> Any:
        """Of one complete type: a number, a truth, a string, an array, a dictionary, a variant. Errors: OSError."""
        kind = signature[0]
        if kind in "ub":
            return self.number()
        if kind in "so":
            return self._text(self.number())
        if kind == "g":
            return self._text(self.byte())
        if kind == "v":
            return self.value(self._text(self.byte()))
        if kind == "a":
            return self._array(signature[1:])
        raise OSError(f"the system's bus sent a value of a type that nobody asked for: {signature}")

    def _text(self, length: int) -> str:
        text = self._data[self.place : self.place + length].decode(errors="replace")
        self.place += length + 1
        return text

    def _array(self, element: str) -> Any:
        length = self.number()
        if element[0] != "{":
            end = self.place + length
            items = []
            while self.place < end:
                items.append(self.value(element))
            return items
        self.align(8)
        end = self.place + length
        entries = {}
        while self.place < end:
            self.align(8)
            key = self.value(element[1])
            entries[key] = self.value(element[2:-1])
        return entries


def _first(signature: str) -> str:
    """The first complete type of a signature."""
    if signature[0] == "a":
        return "a" + _first(signature[1:])
    return signature[: signature.rindex("}") + 1] if signature[0] == "{" else signature[0]
