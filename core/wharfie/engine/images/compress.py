"""Layers made smaller for a registry: gzip, the same bytes for the same input, hashed while they are written."""

from __future__ import annotations

import hashlib
from pathlib import Path

from isal import isal_zlib

from wharfie.engine.images.pipes import Stop
from wharfie.store.content import ContentStore, Spool

_LEVEL = 2
"""Of ISA-L's four: the next one takes twice the time for two percent."""
_GZIP = 31
"""zlib's number for a window of 32 kB in a gzip file; its header then has no name and no time."""
_INPUT = 1 << 20


def compress(store: ContentStore, source: Path, stop: Stop) -> tuple[Spool, str]:
    """A spool with the compressed file, and its digest; the caller discards it. Blocks.

    Errors: OutOfSpace, Cancelled, OSError (the source).
    """
    spool = store.spool()
    try:
        encoder = isal_zlib.compressobj(_LEVEL, wbits=_GZIP)
        hasher = hashlib.sha256()
        with source.open("rb", buffering=0) as file:
            while plain := file.read(_INPUT):
                stop.check()
                if piece := encoder.compress(plain):
                    hasher.update(piece)
                    spool.write(piece)
        piece = encoder.flush()
        hasher.update(piece)
        spool.write(piece)
    except BaseException:
        spool.discard()
        raise
    return spool, "sha256:" + hasher.hexdigest()
