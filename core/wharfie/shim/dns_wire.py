"""DNS messages as bytes (RFC 1035, section 4; EDNS: RFC 6891): as much as a resolver's stub needs."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

A, PTR, AAAA, OPT = 1, 12, 28, 41
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)

TTL = 600
"""Seconds that an answer of ours may be kept (Docker's)."""
UDP_SIZE = 512
"""Bytes of an answer over UDP when the client names no size."""
_LARGEST_UDP = 4096
_HEAD = struct.Struct(">HHHHHH")
_RESPONSE, _AUTHORITATIVE, _TRUNCATED, _RECURSION_WANTED, _RECURSION_THERE = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080


class Malformed(ValueError):
    """Not a query that could be answered."""


@dataclass(frozen=True, slots=True)
class Query:
    """`name`: lower case, without the last dot. `question`: its bytes as they came. `size`: what UDP may carry back."""

    id: int
    flags: int
    name: str
    type: int
    kind: int  # class
    question: bytes
    size: int

    @property
    def is_standard(self) -> bool:
        return not self.flags & 0x7800


def parse(data: bytes) -> Query:
    """The one question of a query. Errors: Malformed."""
    try:
        number, flags, questions, _, _, additional = _HEAD.unpack_from(data)
        if flags & _RESPONSE or questions != 1:
            raise Malformed("not a query with one question")
        name, end = _read_name(data, _HEAD.size)
        asked, kind = struct.unpack_from(">HH", data, end)
        end += 4
        size = UDP_SIZE
        # An OPT record directly after the question is where every stub puts it.
        if additional and data[end : end + 1] == b"\0" and len(data) >= end + 5:
            record, size_wanted = struct.unpack_from(">HH", data, end + 1)
            if record == OPT:
                size = min(max(size_wanted, UDP_SIZE), _LARGEST_UDP)
    except (struct.error, IndexError) as error:
        raise Malformed(str(error)) from error
    return Query(number, flags, name, asked, kind, data[_HEAD.size : end], size)


def answer(query: Query, code: int, records: Sequence[bytes] = (), *, size: int = 65535) -> bytes:
    """A response with `records` (data of the query's own type) as far as they fit into `size` bytes."""
    flags = _RESPONSE | _RECURSION_THERE | (query.flags & (0x7800 | _RECURSION_WANTED)) | code
    body = bytearray()
    count = 0
    for record in records:
        # 0xC00C points at the name in the question.
        entry = struct.pack(">HHHIH", 0xC00C, query.type, IN, TTL, len(record)) + record
        if _HEAD.size + len(query.question) + len(body) + len(entry) > size:
            flags |= _TRUNCATED
            break
        body += entry
        count += 1
    return _HEAD.pack(query.id, flags, 1, count, 0, 0) + query.question + bytes(body)


def refuse_malformed(data: bytes) -> bytes | None:
    """FORMERR to something that is not a query, or None when even its id cannot be read."""
    if len(data) < _HEAD.size or data[2] & 0x80:
        return None
    return _HEAD.pack(int.from_bytes(data[:2], "big"), _RESPONSE | FORMERR, 0, 0, 0, 0)


def write_name(name: str) -> bytes:
    """`name` as labels. Errors: Malformed."""
    data = bytearray()
    for label in name.split("."):
        encoded = label.encode()
        if not 0 < len(encoded) < 64:
            raise Malformed(f"label {label!r}")
        data += bytes([len(encoded)]) + encoded
    return bytes(data) + b"\0"


def reverse_name(address: bytes) -> str:
    """The name under which PTR asks for an IPv4 (4 bytes) or IPv6 address (16)."""
    if len(address) == 4:
        return ".".join(str(byte) for byte in reversed(address)) + ".in-addr.arpa"
    return ".".join(reversed(address.hex())) + ".ip6.arpa"


def _read_name(data: bytes, start: int) -> tuple[str, int]:
    labels = []
    while length := data[start]:
        if length > 63:  # nothing stands before the question that a pointer could name
            raise Malformed("compressed question")
        label = data[start + 1 : start + 1 + length]
        if len(label) < length:
            raise Malformed("truncated")
        labels.append(label.decode("utf-8", "surrogateescape").lower())
        start += 1 + length
    return ".".join(labels), start + 1
