"""Docker's log entries on the wire: 4 bytes of length, big-endian, then a protobuf LogEntry (moby, logdriver/entry.proto).

    source = 1 (string), time_nano = 2 (int64), line = 3 (bytes), partial = 4 (bool), partial_log_metadata = 5

Used in the shim too: standard library only.
"""

from __future__ import annotations

from typing import Literal

from wharfie.spi.log import LogEntry

LENGTH = 4
LIMIT = 1024 * 1024
"""Bytes of one entry; Docker's lines end at 16 KiB."""
_SOURCE, _TIME, _LINE, _PARTIAL = 1, 2, 3, 4
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Damaged(ValueError):
    """What comes is no log entry."""


def encode(stream: str, time_ns: int, line: bytes, partial: bool) -> bytes:
    """One framed entry."""
    record = b"\x0a" + _number(len(stream)) + stream.encode() + b"\x10" + _number(time_ns)
    record += b"\x1a" + _number(len(line)) + line
    if partial:
        record += b"\x20\x01"
    return len(record).to_bytes(LENGTH, "big") + record


def split(data: bytearray) -> list[LogEntry]:
    """Take the whole entries off the beginning of `data`. Errors: Damaged."""
    entries = []
    while len(data) >= LENGTH:
        size = int.from_bytes(data[:LENGTH], "big")
        if size > LIMIT:
            raise Damaged(f"a log entry of {size} bytes")
        if len(data) < LENGTH + size:
            break
        entries.append(decode(bytes(data[LENGTH : LENGTH + size])))
        del data[: LENGTH + size]
    return entries


def decode(record: bytes) -> LogEntry:
    """One entry without its frame. Unknown fields are passed over. Errors: Damaged."""
    numbers: dict[int, int] = {}
    texts: dict[int, bytes] = {}
    position = 0
    try:
        while position < len(record):
            tag, position = _read_number(record, position)
            field, kind = tag >> 3, tag & 7
            if kind == _VARINT:
                numbers[field], position = _read_number(record, position)
            elif kind == _BYTES:
                size, position = _read_number(record, position)
                texts[field] = record[position : position + size]
                position += size
            elif kind in (_FIXED64, _FIXED32):
                position += 8 if kind == _FIXED64 else 4
            else:
                raise Damaged(f"a log entry with a field of type {kind}")
    except IndexError:
        raise Damaged("a log entry that is cut off") from None
    if position != len(record):
        raise Damaged("a log entry that is cut off")
    stream: Literal["stdout", "stderr"] = "stderr" if texts.get(_SOURCE) == b"stderr" else "stdout"
    line = texts.get(_LINE, b"")
    return LogEntry(stream=stream, data=line if numbers.get(_PARTIAL) else line + b"\n", time_ns=numbers.get(_TIME, 0))


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_number(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80 or shift > 63:
            return value, position
        shift += 7
