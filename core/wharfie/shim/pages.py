"""Memory that is shared after a fork, and how it stays so.

CPython's allocator hands out blocks of one size from pools of 16 KiB. Importing modules leaves free blocks all over them; a
shim that filled these would write to a page for nearly each of its first objects.
"""

from __future__ import annotations

import gc

_POOL = 16 * 1024
_HEADER = 48
_SIZES = range(48, 513, 16)  # of blocks, from the smallest that a bytes object takes
_NEW = 3
"""Blocks from a pool's beginning on, in order, that tell a new pool from one in which some are free."""
_ENOUGH = 4096
"""Objects of one size after which an allocator that works in another way is left alone."""
_EMPTY_BYTES = 33  # sys.getsizeof(b"")
_kept: list[bytes] = []


def settle() -> None:
    """Fill the blocks that are free, so that new objects come to new pages, and hide what is there from the collector."""
    gc.collect()
    for size in _SIZES:
        _fill(size)
    gc.freeze()


def _fill(size: int) -> None:
    """Allocate until a new pool is begun: then no older one has room, and a shim's first objects share a page with the
    pool's own header."""
    run, last = 0, 0
    for _ in range(_ENOUGH):
        filler = bytes(size - _EMPTY_BYTES)
        _kept.append(filler)
        begins = id(filler) % _POOL == _HEADER
        follows = run > 0 and id(filler) == last + size
        run = 1 if begins else (run + 1) * follows
        if run == _NEW:
            return
        last = id(filler)
