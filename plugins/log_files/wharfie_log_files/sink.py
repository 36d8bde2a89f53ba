"""The sinks: what runs in the shim beside the container. Standard library and `wharfie.spi.log` only.

json-file, as Docker Engine writes it (contract: key order log, stream, attrs, time):

    {"log":"text\\n","stream":"stdout","attrs":{"tag":"web"},"time":"2026-11-24T16:48:10.597251234Z"}

local, as Docker Engine's `local` driver writes it: a 4-byte big-endian length, a protobuf LogEntry (source = 1,
time_nano = 2, line = 3, partial = 4), the length again.
"""

from __future__ import annotations

import codecs
import os
import time
from collections.abc import Mapping
from typing import Literal

from wharfie.spi.driver import Strings
from wharfie.spi.log import LogSink, Stream
from wharfie_log_files.framing import Lines, Records
from wharfie_log_files.rotating import RotatingFile

_REPLACE = "wharfie-log-replace"
_BEGIN = b'{"log":"'
_MARKUP = {
    b"<": b"\\u003c",
    b">": b"\\u003e",
    b"&": b"\\u0026",
    "\u2028".encode(): b"\\u2028",
    "\u2029".encode(): b"\\u2029",
}
"""What Go's encoder escapes beyond JSON's own rules."""
_ESCAPES = {
    b"\\": b"\\\\",  # first: the others bring more of it
    b'"': b'\\"',
    **{bytes((byte,)): f"\\u{byte:04x}".encode() for byte in range(0x20) if byte != 0x0A},
    **{bytes((byte,)): b"\\" + letter.encode() for byte, letter in zip(b"\b\f\r\t", "bfrt", strict=True)},
    **_MARKUP,
}
_PLAIN = bytes(byte for byte in (0x0A, *range(0x20, 0x80)) if bytes((byte,)) not in _ESCAPES)
"""What stands for itself, and line ends, which are dealt with apart."""


def _one_for_each_byte(error: UnicodeError) -> tuple[str, int]:
    """U+FFFD for each byte that is not UTF-8, as Go does it; Python would take one for a whole broken sequence."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error(_REPLACE, _one_for_each_byte)


class JsonFileSink(LogSink):
    """Writes Docker's json-file. Options, all from `JsonFileDriver.plan`: path, max-size, max-file, compress, attrs."""

    def __init__(self, options: Strings) -> None:
        self._file = _open(options, Lines())
        attributes = f'"attrs":{options["attrs"]},'.encode() if "attrs" in options else b""
        self._attributes = _replaced(attributes, _MARKUP)
        self._pending: list[bytes] = []
        self._time_ns = -1
        self._ends: dict[str, bytes] = {}
        self._held: dict[str, bytes] = {}

    def write(self, stream: Stream, data: memoryview, time_ns: int, partial: bool) -> None:
        self._set_time(time_ns)
        text = self._whole_characters(stream, data, partial) if partial or self._held else bytes(data)
        # The last line of a program that did not end it stays without an end, as with Docker.
        self._pending += (_BEGIN, _escaped(text).replace(b"\n", b"\\n"), self._ends[stream])

    def write_lines(self, stream: Stream, lines: bytes, time_ns: int) -> None:
        if self._held:
            super().write_lines(stream, lines, time_ns)
            return
        self._set_time(time_ns)
        between = b"\\n" + self._ends[stream] + _BEGIN
        self._pending += (_BEGIN, _escaped(lines).replace(b"\n", between)[: -len(_BEGIN)])

    def flush(self) -> None:
        if self._pending:
            batch = b"".join(self._pending)
            self._pending.clear()
            self._file.append(batch)

    def close(self) -> None:
        for stream in ("stdout", "stderr"):
            if stream in self._held:
                self.write(stream, memoryview(b""), self._time_ns, False)
        try:
            self.flush()
        finally:
            self._file.close()

    def _set_time(self, time_ns: int) -> None:
        """One timestamp serves all lines of a read."""
        if time_ns != self._time_ns:
            self._time_ns = time_ns
            end = f'"time":"{rfc3339(time_ns)}"}}\n'.encode()
            self._ends = {
                name: b'","stream":"' + name.encode() + b'",' + self._attributes + end for name in ("stdout", "stderr")
            }

    def _whole_characters(self, stream: Stream, data: memoryview, partial: bool) -> bytes:
        """A long line is cut at a byte count; a character that is cut in two is kept for the next piece."""
        piece = self._held.pop(stream, b"") + data
        if partial and (cut := _cut_character(piece)):
            self._held[stream] = piece[-cut:]
            piece = piece[:-cut]
        return piece


class LocalSink(LogSink):
    """Writes Docker's local format. Options, all from `LocalLogDriver.plan`: path, max-size, max-file, compress."""

    _SOURCE = {"stdout": b"\x0a\x06stdout\x10", "stderr": b"\x0a\x06stderr\x10"}  # field 1 and the tag of field 2

    def __init__(self, options: Strings) -> None:
        self._file = _open(options, Records())
        self._pending: list[bytes] = []
        self._time_ns = -1
        self._heads: dict[str, bytes] = {}

    def write(self, stream: Stream, data: memoryview, time_ns: int, partial: bool) -> None:
        if time_ns != self._time_ns:
            self._time_ns = time_ns
            stamp = varint(time_ns)
            self._heads = {name: source + stamp + b"\x1a" for name, source in self._SOURCE.items()}
        line = bytes(data)
        unended = line[-1:] != b"\n"  # also the last line of a program that did not end it, as with Docker
        if not unended:
            line = line[:-1]
        size = len(line)
        record = self._heads[stream] + (size.to_bytes(1, "big") if size < 0x80 else varint(size)) + line
        if unended:
            record += b"\x20\x01"
        length = len(record).to_bytes(Records.LENGTH, "big")
        self._pending.append(length + record + length)

    def flush(self) -> None:
        if self._pending:
            batch = b"".join(self._pending)
            self._pending.clear()
            self._file.append(batch)

    def close(self) -> None:
        try:
            self.flush()
        finally:
            self._file.close()


class NoneSink(LogSink):
    """Drops everything."""

    def write(self, stream: Stream, data: memoryview, time_ns: int, partial: bool) -> None:
        pass

    def write_lines(self, stream: Stream, lines: bytes, time_ns: int) -> None:
        pass

    def close(self) -> None:
        pass


def rehearse() -> None:
    """A line that goes nowhere, by each sink (see `wharfie.shim.rehearsal`)."""
    options = {"path": os.devnull, "max-size": "0", "max-file": "1", "compress": "false"}
    for kind in (JsonFileSink, LocalSink):
        sink: LogSink = kind(options)
        sink.write_lines("stdout", b"line\n", 0)
        sink.flush()
        sink.close()


def _escaped(data: bytes) -> bytes:
    """Output as it stands between a JSON string's quotes, but for the line ends, which stay. What is not UTF-8 is replaced.

    By passes over the whole, each at the speed of memory: a container may write more lines a second than an interpreter can
    look at one by one.
    """
    special = data.translate(None, _PLAIN)
    if not special:
        return data
    if not special.isascii():
        data = str(data, "utf-8", _REPLACE).encode()
    return _replaced(data, {character: escape for character, escape in _ESCAPES.items() if character in special})


def _replaced(data: bytes, escapes: Mapping[bytes, bytes]) -> bytes:
    for character, escape in escapes.items():
        data = data.replace(character, escape)
    return data


def varint(value: int) -> bytes:
    """Protobuf's encoding of a whole number: seven bits a byte, lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def rfc3339(time_ns: int) -> str:
    """RFC 3339 in UTC with as many digits of the second as it has, as Go's RFC3339Nano."""
    seconds, fraction = divmod(time_ns, 1_000_000_000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{stamp}.{fraction:09d}".rstrip("0") + "Z" if fraction else stamp + "Z"


def _cut_character(piece: bytes) -> Literal[0, 1, 2, 3]:
    """How many bytes at the end of `piece` begin a UTF-8 character that needs more."""
    for back in (1, 2, 3):
        if back > len(piece):
            return 0
        byte = piece[-back]
        if byte & 0xC0 == 0x80:  # a continuation: its head is before it
            continue
        needed = 2 if byte & 0xE0 == 0xC0 else 3 if byte & 0xF0 == 0xE0 else 4 if byte & 0xF8 == 0xF0 else 1
        return back if back < needed else 0
    return 0


def _open(options: Strings, framing: Lines | Records) -> RotatingFile:
    return RotatingFile(
        options["path"],
        framing,
        max_size=int(options["max-size"]),
        max_file=int(options["max-file"]),
        compress=options["compress"] == "true",
    )
