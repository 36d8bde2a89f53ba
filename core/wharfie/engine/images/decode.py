"""Compressed streams, with bounded memory: whatever the input says, one step yields at most a chunk."""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Protocol, cast

import zstandard
from isal import igzip_lib, isal_zlib

from wharfie.spi.errors import InvalidArgument

_INPUT = 1 << 17
_OUTPUT = 1 << 20
_WINDOW_LIMIT = 1 << 27
"""Memory that a zstd frame may ask for; `zstd --long` makes frames of this size."""
_MEMORY_LIMIT = 1 << 27
"""The same for xz."""
_GZIP_ERROR = cast(type[Exception], igzip_lib.IsalError)  # its package says that it is an instance
HEAD = 6
"""Bytes that tell the formats apart."""


class Source(Protocol):
    """Where compressed bytes come from: a file, or what reads like one."""

    def read(self, size: int, /) -> bytes: ...


class _Ahead:
    """A source of which the first bytes were read already."""

    def __init__(self, head: bytes, source: Source) -> None:
        self._head = head
        self._source = source

    def read(self, size: int, /) -> bytes:
        if self._head:
            head, self._head = self._head[:size], self._head[size:]
            return head
        return self._source.read(size)


class _Decoder(Protocol):
    """The common part of bz2's and lzma's incremental decoders."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _gzip(file: Source) -> Iterator[bytes]:
    data = file.read(_INPUT)
    while data:
        decoder = isal_zlib.decompressobj(wbits=31)
        while not decoder.eof:
            piece = decoder.decompress(data, _OUTPUT)
            if piece:
                yield piece
            data = decoder.unconsumed_tail
            if not data and not decoder.eof:
                data = file.read(_INPUT)
                if not data:
                    raise EOFError
        data = _next_member(file, decoder.unused_data)


def _blocks(make: Callable[[], _Decoder]) -> Callable[[Source], Iterator[bytes]]:
    def decode(file: Source) -> Iterator[bytes]:
        data = file.read(_INPUT)
        while data:
            decoder = make()
            while not decoder.eof:
                piece = decoder.decompress(data, _OUTPUT)
                if piece:
                    yield piece
                data = b""
                if decoder.needs_input and not decoder.eof:
                    data = file.read(_INPUT)
                    if not data:
                        raise EOFError
            data = _next_member(file, decoder.unused_data)

    return decode


def _next_member(file: Source, rest: bytes) -> bytes:
    """Formats may be concatenated; zeros between or after members are padding."""
    while not (rest := rest.lstrip(b"\0")):
        rest = file.read(_INPUT)
        if not rest:
            return b""
    return rest


def _zstd(file: Source) -> Iterator[bytes]:
    decoder = zstandard.ZstdDecompressor(max_window_size=_WINDOW_LIMIT)
    readable = cast(IO[bytes], file)  # all that it needs is `read`
    with decoder.stream_reader(readable, read_size=_INPUT, read_across_frames=True, closefd=False) as reader:
        while piece := reader.read(_OUTPUT):
            yield piece


def _plain(file: Source) -> Iterator[bytes]:
    while piece := file.read(_OUTPUT):
        yield piece


_FORMATS: Mapping[bytes, Callable[[Source], Iterator[bytes]]] = {
    b"\x1f\x8b\x08": _gzip,
    b"BZh": _blocks(bz2.BZ2Decompressor),
    b"\xfd7zXZ\0": _blocks(lambda: lzma.LZMADecompressor(memlimit=_MEMORY_LIMIT)),
    b"\x28\xb5\x2f\xfd": _zstd,
    **{
        bytes((0x50 + kind, 0x2A, 0x4D, 0x18)): _zstd for kind in range(16)
    },  # a skippable frame first (estargz, zstd:chunked)
}


def media_suffix(head: bytes) -> str:
    """What a layer's media type ends in (OCI image-spec, layer.md)."""
    if head.startswith(b"\x1f\x8b\x08"):
        return "+gzip"
    return "+zstd" if is_compressed(head) and not head.startswith((b"BZh", b"\xfd7zXZ")) else ""


def is_compressed(head: bytes) -> bool:
    """Whether a stream that begins so is in a format that we know."""
    return any(head.startswith(magic) for magic in _FORMATS)


def decoded(file: Source, what: str) -> Iterator[bytes]:
    """The content of `file` (from its present position), decompressed when it is compressed.

    Errors: InvalidArgument, naming `what`, for damaged or truncated input.
    """
    head = b""
    while len(head) < HEAD and (piece := file.read(HEAD - len(head))):
        head += piece
    file = _Ahead(head, file)
    decode = next((decode for magic, decode in _FORMATS.items() if head.startswith(magic)), None)
    if decode is None:
        yield from _plain(file)
        return
    try:
        yield from decode(file)
    except EOFError:
        raise InvalidArgument(f"{what}: unexpected EOF: the compressed data is cut off") from None
    except (_GZIP_ERROR, lzma.LZMAError, zstandard.ZstdError, OSError) as error:
        raise InvalidArgument(f"{what}: invalid compressed data: {error}") from error
