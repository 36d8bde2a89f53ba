"""What the cache keeps, for how long, and what not."""

from __future__ import annotations

import struct

import pytest

from wharfie.shim import dns_wire
from wharfie.shim.dns_cache import ENTRIES, LARGEST, LONGEST, Cache

ADDRESS = bytes([192, 0, 2, 1])


def answer(ttl: int, *, flags: int = 0x8180, records: int = 1, extra: bytes = b"") -> bytes:
    head = struct.pack(">HHHHHH", 7, flags, 1, records, 0, 1 if extra else 0)
    question = dns_wire.write_name("example.org") + struct.pack(">HH", dns_wire.A, dns_wire.IN)
    record = struct.pack(">HHHIH", 0xC00C, dns_wire.A, dns_wire.IN, ttl, 4) + ADDRESS
    return head + question + record * records + extra


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> Cache:
    return Cache(clock)


def test_times_run_down_and_out(cache: Cache, clock: Clock) -> None:
    opt = b"\0" + struct.pack(">HHIH", dns_wire.OPT, 1232, 0x8000, 0)
    cache.put("q", answer(60, records=2, extra=opt))
    clock.now += 20.5
    assert cache.get("q", b"\1\2") == b"\1\2" + answer(40, records=2, extra=opt)[2:]
    clock.now += 39
    assert cache.get("q", b"\1\2") == b"\1\2" + answer(1, records=2, extra=opt)[2:]
    clock.now += 1
    assert cache.get("q", b"\1\2") is None


def test_nothing_is_kept_for_hours(cache: Cache, clock: Clock) -> None:
    cache.put("q", answer(86400))
    clock.now += LONGEST
    assert cache.get("q", b"\0\0") is None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(answer(0), id="for now alone"),
        pytest.param(answer(1 << 31), id="a negative time"),
        pytest.param(answer(60, flags=0x8380), id="cut"),
        pytest.param(answer(60, flags=0x8183), id="no such name"),
        pytest.param(answer(60, records=0), id="empty"),
        pytest.param(answer(60)[:-3][:-4], id="shorter than it says"),
        pytest.param(answer(60)[:-1], id="without its last byte"),
        pytest.param(answer(60)[:14], id="ends in a name"),
        pytest.param(answer(60) + bytes(LARGEST), id="large"),
    ],
)
def test_what_is_not_kept(cache: Cache, data: bytes) -> None:
    cache.put("q", data)
    assert cache.get("q", b"\0\0") is None


def test_the_oldest_give_way(cache: Cache) -> None:
    for number in range(ENTRIES + 1):
        cache.put(number, answer(60))
    assert cache.get(0, b"\0\0") is None
    assert cache.get(1, b"\0\0") is not None
