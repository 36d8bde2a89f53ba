"""Answers of other name servers, kept as long as they say (RFC 1035, section 3.2.1; RFC 2181, section 8)."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

from wharfie.shim.dns_wire import NOERROR, OPT

ENTRIES: Final = 128
LARGEST: Final = 4096
"""Bytes of an answer that is kept: the cache is the memory of a process beside each container."""
LONGEST: Final = 300
"""Seconds, whatever an answer says: a container that is asked to follow a change does so within minutes."""

_HEAD: Final = struct.Struct(">HHHHHH")
_RECORD: Final = struct.Struct(">HHIH")
_TRUNCATED_OR_CODE: Final = 0x020F
_POINTER: Final = 0xC0


@dataclass(frozen=True, slots=True)
class _Kept:
    answer: bytes  # without its id
    times: tuple[tuple[int, int], ...]  # where a TTL stands in it, and the TTL that came
    since: float
    until: float


class Cache:
    """Positive answers alone: a name that is not there may be there in a moment. The oldest give way."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[Hashable, _Kept] = {}

    def get(self, question: Hashable, id: bytes) -> bytes | None:
        """An answer with its times run down, under the id that was asked with."""
        kept = self._kept.get(question)
        if kept is None:
            return None
        now = self._clock()
        if now >= kept.until:
            del self._kept[question]
            return None
        answer = bytearray(kept.answer)
        for place, seconds in kept.times:
            struct.pack_into(">I", answer, place, max(0, seconds - int(now - kept.since)))
        return id + bytes(answer)

    def put(self, question: Hashable, answer: bytes) -> None:
        """Keep `answer` (with its id) if it may be kept."""
        if len(answer) > LARGEST:
            return
        try:
            times = _times(answer)
        except (struct.error, IndexError):  # not ours to judge: it is passed on, and not kept
            return
        seconds = min([LONGEST, *(seconds for _, seconds in times)])
        if not times or seconds == 0:
            return
        now = self._clock()
        self._kept.pop(question, None)
        while len(self._kept) >= ENTRIES:
            del self._kept[next(iter(self._kept))]
        places = tuple((place - 2, seconds) for place, seconds in times)
        self._kept[question] = _Kept(answer[2:], places, now, now + seconds)


def _times(answer: bytes) -> list[tuple[int, int]]:
    """Where each record's TTL stands, and it; empty for what must not be kept. Errors: struct.error, IndexError."""
    _, flags, questions, *counts = _HEAD.unpack_from(answer)
    if flags & _TRUNCATED_OR_CODE != NOERROR or not counts[0]:
        return []
    at = _HEAD.size
    for _ in range(questions):
        at = _after_name(answer, at) + 4
    times = []
    for _ in range(sum(counts)):
        at = _after_name(answer, at)
        kind, _, seconds, length = _RECORD.unpack_from(answer, at)
        if kind != OPT:  # whose TTL is flags
            times.append((at + 4, 0 if seconds >> 31 else seconds))
        at += _RECORD.size + length
    return times if at == len(answer) else []


def _after_name(data: bytes, at: int) -> int:
    while length := data[at]:
        if length >= _POINTER:
            return at + 2
        at += 1 + length
    return at + 1
