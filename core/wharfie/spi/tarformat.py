"""The tar format: headers as bytes, read from a stream and made for one.

Read: v7, ustar, PAX and GNU archives with long names, PAX extended attributes and all four kinds of sparse file, as GNU
tar, Go's archive/tar and Python's tarfile write them (POSIX.1-2001 pax; GNU tar manual, "Basic Tar Format" and "Sparse
Formats"). Global PAX headers are skipped, as Docker does. Written: ustar with a PAX header where ustar cannot say it.

Python's `tarfile` is not used: it takes a damaged header in the middle for the end of the archive, reads a PAX header of
any size into memory, and loses nanoseconds. Here every length has a limit before memory is taken for it.
"""

from __future__ import annotations

import os
import select
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from wharfie.spi.call import progress
from wharfie.spi.errors import InvalidArgument

BLOCK: Final = 512
EXTENSION_LIMIT: Final = 1 << 20
"""Bytes of one PAX header, long name or sparse map (the same limit as Go's archive/tar)."""
TRAILING_LIMIT: Final = 64 << 20
"""Bytes that may follow an archive's end. Archivers fill up a record; whoever adds more wants to keep us reading."""
SIZE_LIMIT: Final = (1 << 63) - 1
ID_LIMIT: Final = (1 << 32) - 2
"""The highest owner: the one above means "leave as it is" to chown(2)."""
XATTR: Final = b"SCHILY.xattr."

REGULAR: Final = b"0"
HARD_LINK: Final = b"1"
SYMLINK: Final = b"2"
CHARACTER: Final = b"3"
BLOCK_DEVICE: Final = b"4"
FOLDER: Final = b"5"
FIFO: Final = b"6"

_OLD_REGULAR, _CONTIGUOUS, _GNU_SPARSE, _VOLUME_LABEL = b"\0", b"7", b"S", b"V"
_PAX, _PAX_SOLARIS, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK = b"x", b"X", b"g", b"L", b"K"
_KINDS = frozenset({REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, FOLDER, FIFO})

_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x")
_SUM_AT, _BLANK_SUM = 148, b" " * 8  # the sum is made as if blanks stood in its place
_GNU_SPARSE_FIELDS = struct.Struct("96sB12s")  # at 386: four pairs, "extended" flag, real size
_CHUNK = 1 << 20
_PATIENCE_MS = 5_000
"""How long a read may wait before it tells that it is not stuck."""
_ZEROS = bytes(BLOCK)

Region = tuple[int, int]
"""Offset and length of a stretch of a sparse file that has data."""


@dataclass(slots=True, kw_only=True)
class Entry:
    """One entry. `path` and `link` as the archive says them: nothing is checked yet. `size`: bytes of the file.

    `sparse`: the stretches that the archive has data for, in order; None for a file that is stored whole.
    """

    path: bytes
    kind: bytes = REGULAR
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    sparse: tuple[Region, ...] | None = None


def invalid(why: str) -> InvalidArgument:
    """The stream is not a tar, or a damaged one."""
    return InvalidArgument(f"archive/tar: invalid tar header: {why}")


def truncated() -> InvalidArgument:
    """The stream ends within an entry."""
    return InvalidArgument("archive/tar: unexpected EOF: the archive is cut off")


class Reader:
    """Entries of the archive that the descriptor `source` yields, with their data between them.

    Iterate; after each entry its data may be taken with `copy` or left. An empty stream is an empty archive. At the end
    the rest of the stream is read and dropped, so that whoever writes it can finish.
    """

    def __init__(self, source: int) -> None:
        self._source = source
        self._poller = select.poll()
        self._poller.register(source, select.POLLIN)
        self._buffer = bytearray(_CHUNK)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0  # what of the buffer is filled and not yet used
        self._left = 0  # bytes of the present entry's data that nobody took
        self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        return self

    def __next__(self) -> Entry:
        records: list[tuple[bytes, bytes]] = []
        long_name = long_link = None
        while True:
            self._skip(self._left + self._padding)
            block = self._header_block()
            if block is None:
                if records or long_name is not None or long_link is not None:
                    raise truncated()
                self._drain()
                raise StopIteration
            fields = _HEADER.unpack(block)
            _check_sum(block, fields[6])
            kind: bytes = fields[7]
            size = 0 if kind in (HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, FOLDER, FIFO) else _number(fields[4], "size")
            self._left, self._padding = size, -size % BLOCK
            if kind in (_PAX, _PAX_SOLARIS):
                records = list(_pax_records(self._extension()))
            elif kind == _LONG_NAME:
                long_name = self._extension().split(b"\0", 1)[0]
            elif kind == _LONG_LINK:
                long_link = self._extension().split(b"\0", 1)[0]
            elif kind not in (_PAX_GLOBAL, _VOLUME_LABEL):
                break
        entry = _entry(fields, size)
        if kind == _GNU_SPARSE:
            self._read_old_sparse(entry, block)
        if long_name is not None:
            entry.path = long_name
        if long_link is not None:
            entry.link = long_link
        if records:
            self._apply_records(entry, records)
        if entry.kind == REGULAR and entry.path.endswith(b"/"):  # how archives before ustar say "folder"
            entry.kind = FOLDER
        elif entry.kind not in _KINDS:
            raise invalid(f"{entry.path!r} is of the unknown type {kind!r}")
        return entry

    @property
    def offset(self) -> int:
        """Where in the source the present entry's data begins. For a source that can seek, before anything is copied."""
        return os.lseek(self._source, 0, os.SEEK_CUR) - (self._end - self._start)

    def pieces(self, count: int) -> Iterator[memoryview]:
        """The next `count` bytes of the present entry's data; each piece is overwritten by the next."""
        self._left -= count
        while count:
            if self._start == self._end:
                self._refill()
            piece = self._view[self._start : min(self._end, self._start + count)]
            self._start += len(piece)
            count -= len(piece)
            yield piece

    def copy(self, target: int, count: int) -> None:
        """Write the next `count` bytes of the present entry's data to `target`, at its file position."""
        for piece in self.pieces(count):
            written = os.write(target, piece)
            while written < len(piece):
                written += os.write(target, piece[written:])

    def _read(self, into: memoryview) -> int:
        progress()
        while not self._poller.poll(_PATIENCE_MS):  # a layer that still arrives: its registry may be slow
            progress()
        return os.readv(self._source, [into])

    def _refill(self) -> None:
        self._start = 0
        self._end = self._read(self._view)
        if not self._end:
            raise truncated()

    def _need(self, count: int) -> bool:
        """Have `count` bytes (at most a chunk) in one piece; False when the stream ends before them."""
        if self._end - self._start >= count:
            return True
        rest = self._end - self._start
        self._buffer[:rest] = self._buffer[self._start : self._end]
        self._start, self._end = 0, rest
        while self._end < count:
            got = self._read(self._view[self._end :])
            if not got:
                return False
            self._end += got
        return True

    def _take(self, count: int) -> bytes:
        if not self._need(count):
            raise truncated()
        piece = bytes(self._view[self._start : self._start + count])
        self._start += count
        return piece

    def _skip(self, count: int) -> None:
        while count:
            if self._start == self._end:
                self._refill()
            step = min(count, self._end - self._start)
            self._start += step
            count -= step
        self._left = self._padding = 0

    def _drain(self) -> None:
        rest = self._end - self._start
        self._start = self._end = 0
        while count := self._read(self._view):
            rest += count
            if rest > TRAILING_LIMIT:
                raise invalid(f"more than {TRAILING_LIMIT} bytes after its end")

    def _header_block(self) -> bytes | None:
        """The next header; None at the end of the archive, which two zero blocks or the end of the stream mark."""
        if not self._need(BLOCK):
            if self._start != self._end:
                raise truncated()
            return None
        block = self._take(BLOCK)
        if block != _ZEROS:
            return block
        if not self._need(BLOCK):
            if self._start != self._end:
                raise truncated()
            return None
        if self._take(BLOCK) != _ZEROS:
            raise invalid("one block of zeros in the middle")
        return None

    def _extension(self) -> bytes:
        """The data of a header that describes the next one."""
        size = self._left
        if size > EXTENSION_LIMIT:
            raise invalid(f"an extended header of {size} bytes; the limit is {EXTENSION_LIMIT}")
        data = b"".join(self._take(min(size - at, BLOCK)) for at in range(0, size, BLOCK))
        self._left = 0
        return data

    def _apply_records(self, entry: Entry, records: Iterable[tuple[bytes, bytes]]) -> None:
        sparse: list[int] = []
        facts: dict[bytes, bytes] = {}
        for key, value in records:
            if key.startswith(XATTR):
                entry.xattrs[key[len(XATTR) :]] = value
            elif key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
                sparse.append(_decimal(value, key))
            elif value:
                facts[key] = value
        if b"size" in facts and entry.kind == REGULAR and entry.sparse is None:
            entry.size = self._left = _decimal(facts[b"size"], b"size")
            self._padding = -entry.size % BLOCK
        for key in (b"path", b"linkpath", b"GNU.sparse.name"):
            if b"\0" in facts.get(key, b""):
                raise invalid(f"a zero byte in {key.decode()}")
        entry.path = facts.get(b"GNU.sparse.name", facts.get(b"path", entry.path))
        entry.link = facts.get(b"linkpath", entry.link)
        if b"uid" in facts:
            entry.uid = _owner(_decimal(facts[b"uid"], b"uid"))
        if b"gid" in facts:
            entry.gid = _owner(_decimal(facts[b"gid"], b"gid"))
        if b"mtime" in facts:
            entry.mtime_ns = _nanoseconds(facts[b"mtime"])
        if facts.get(b"GNU.sparse.major") == b"1":
            entry.size = _decimal(facts.get(b"GNU.sparse.realsize", b""), b"GNU.sparse.realsize")
            entry.sparse = self._regions(entry, self._read_sparse_map())
        elif b"GNU.sparse.map" in facts or sparse:
            if b"GNU.sparse.map" in facts:
                sparse = [_decimal(text, b"GNU.sparse.map") for text in facts[b"GNU.sparse.map"].split(b",")]
            entry.size = _decimal(facts.get(b"GNU.sparse.size", b""), b"GNU.sparse.size")
            entry.sparse = self._regions(entry, sparse)

    def _read_sparse_map(self) -> list[int]:
        """The map of format 1.0 stands before the data: a count, then offsets and lengths, one a line, in whole blocks."""
        numbers: list[int] = []
        text = b""
        read = 0
        wanted = 1
        while len(numbers) < wanted:
            line, newline, rest = text.partition(b"\n")
            if newline:
                text = rest
                numbers.append(_decimal(line, b"sparse map"))
                if len(numbers) == 1:
                    wanted = 1 + 2 * numbers[0]
                continue
            if read >= min(self._left, EXTENSION_LIMIT):
                raise invalid("the map of a sparse file does not end")
            text += self._take(BLOCK)
            read += BLOCK
        if read > self._left:
            raise invalid("the map of a sparse file is longer than its data")
        self._left -= read
        return numbers[1:]

    def _read_old_sparse(self, entry: Entry, block: bytes) -> None:
        pairs, extended, real_size = _GNU_SPARSE_FIELDS.unpack_from(block, 386)
        text = pairs
        while extended:
            more = self._take(BLOCK)
            text += more[:504]
            extended = more[504]
            if len(text) > EXTENSION_LIMIT:
                raise invalid("the map of a sparse file is too long")
        numbers = []
        for at in range(0, len(text) - 23, 24):
            if not text[at + 12]:
                break
            numbers += [_number(text[at : at + 12], "sparse offset"), _number(text[at + 12 : at + 24], "sparse length")]
        entry.kind = REGULAR
        entry.size = _number(real_size, "real size")
        entry.sparse = self._regions(entry, numbers)

    def _regions(self, entry: Entry, numbers: list[int]) -> tuple[Region, ...]:
        """Pairs checked: in order, within the file, and together as long as the data."""
        if entry.kind != REGULAR or len(numbers) % 2:
            raise invalid(f"the map of the sparse file {entry.path!r}")
        regions = tuple(zip(numbers[::2], numbers[1::2], strict=True))
        end = total = 0
        for offset, length in regions:
            if offset < end or offset + length > entry.size:
                raise invalid(f"the map of the sparse file {entry.path!r}")
            end = offset + length
            total += length
        if total != self._left:
            raise invalid(f"the sparse file {entry.path!r} has {self._left} bytes of data and a map for {total}")
        return regions


def _entry(fields: tuple[bytes, ...], size: int) -> Entry:
    name, mode, uid, gid, _, mtime, _, kind, link, magic, _, _, _, major, minor, prefix = fields
    path = name.split(b"\0", 1)[0]
    if magic == b"ustar\0" and prefix[0]:
        path = prefix.split(b"\0", 1)[0] + b"/" + path
    entry = Entry(
        path=path,
        kind=REGULAR if kind in (_OLD_REGULAR, _CONTIGUOUS) else kind,
        mode=_number(mode, "mode") & 0o7777,
        uid=_owner(_number(uid, "uid")),
        gid=_owner(_number(gid, "gid")),
        size=size,
        mtime_ns=_signed(mtime, "mtime") * 1_000_000_000,
        link=link.split(b"\0", 1)[0],
    )
    if kind in (CHARACTER, BLOCK_DEVICE):
        entry.device = (_number(major, "device"), _number(minor, "device"))
        if entry.device[0] >= 1 << 12 or entry.device[1] >= 1 << 20:  # what the kernel's dev_t holds
            raise invalid(f"{path!r} has the device number {entry.device}")
    return entry


def _check_sum(block: bytes, stored: bytes) -> None:
    said = _number(stored, "checksum")
    rest = block[:148] + block[156:]
    total = sum(rest) + 8 * 0x20
    # Some old archivers added signed bytes.
    if said != total and said != total - 256 * sum(byte > 127 for byte in rest):
        raise invalid("the checksum is wrong")


def _signed(field: bytes, what: str) -> int:
    """A number as octal text, or in base 256 with the first bit set (GNU), negative when the second is set too."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=True)
        return value if field[0] == 0xFF else value + (1 << (8 * len(field) - 1))
    text = field.strip(b" \0")
    if not text:
        return 0
    try:
        if not text.isdigit():
            raise ValueError
        return int(text, 8)
    except ValueError:
        raise invalid(f"{what} is {field!r}") from None


def _number(field: bytes, what: str) -> int:
    value = _signed(field, what)
    if not 0 <= value <= SIZE_LIMIT:
        raise invalid(f"{what} is {value}")
    return value


def _owner(value: int) -> int:
    if value > ID_LIMIT:
        raise invalid(f"the owner {value} is too high")
    return value


def _decimal(text: bytes, what: bytes) -> int:
    if not text.isdigit() or len(text) > 19 or int(text) > SIZE_LIMIT:
        raise invalid(f"{what.decode(errors='replace')} is {text[:40]!r}")
    return int(text)


def _nanoseconds(text: bytes) -> int:
    whole, _, fraction = text.partition(b".")
    negative = whole.startswith(b"-")
    digits = (fraction + b"000000000")[:9]
    if len(whole) > 19 or not whole.removeprefix(b"-").isdigit() or not digits.isdigit():
        raise invalid(f"mtime is {text[:40]!r}")
    value = abs(int(whole)) * 1_000_000_000 + int(digits)
    return -value if negative else value


def _pax_records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """`LENGTH KEY=VALUE\\n`, where the length counts the whole record."""
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        end = at + _decimal(data[at:space] if space > 0 else b"", b"the length of a PAX record")
        if end <= space + 1 or end > len(data) or data[end - 1] != 0x0A:
            raise invalid("a PAX record has a wrong length")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise invalid("a PAX record without a key")
        yield key, value
        at = end


def header(entry: Entry) -> bytes:
    """The header blocks of `entry`, to be followed by `entry.size` bytes of data in whole blocks."""
    records: dict[bytes, bytes] = {XATTR + key: value for key, value in sorted(entry.xattrs.items())}
    seconds, fraction = divmod(entry.mtime_ns, 1_000_000_000)
    if fraction or not 0 <= seconds < 1 << 33:
        records[b"mtime"] = _seconds(entry.mtime_ns)
    for key, path in ((b"path", entry.path), (b"linkpath", entry.link)):
        if len(path) > 100 or not path.isascii():
            records[key] = path
    for key, value, limit in ((b"size", entry.size, 1 << 33), (b"uid", entry.uid, 1 << 21), (b"gid", entry.gid, 1 << 21)):
        if value >= limit:
            records[key] = b"%d" % value
    block = _ustar(entry, seconds)
    if not records:
        return block
    data = b"".join(_pax_record(key, value) for key, value in records.items())
    name = b"PaxHeaders/" + entry.path.rstrip(b"/").rsplit(b"/", 1)[-1][:80]
    before = _ustar(Entry(path=name, kind=_PAX, size=len(data)), 0)
    return before + data + bytes(-len(data) % BLOCK) + block


def trailer() -> bytes:
    """What ends an archive."""
    return 2 * _ZEROS


def _ustar(entry: Entry, seconds: int) -> bytes:
    major, minor = entry.device
    block = _HEADER.pack(
        entry.path[:100],
        b"%07o" % (entry.mode & 0o7777),
        b"%07o" % _fitting(entry.uid, 7),
        b"%07o" % _fitting(entry.gid, 7),
        b"%011o" % _fitting(entry.size, 11),
        b"%011o" % _fitting(seconds, 11),
        _BLANK_SUM,
        entry.kind,
        entry.link[:100],
        b"ustar\0",
        b"00",
        b"",
        b"",
        b"%07o" % _fitting(major, 7),
        b"%07o" % _fitting(minor, 7),
        b"",
    )
    return b"%b%06o\0 %b" % (block[:_SUM_AT], sum(block), block[_SUM_AT + len(_BLANK_SUM) :])


def _fitting(value: int, digits: int) -> int:
    """What a PAX record has to say instead is 0 here."""
    return value if 0 <= value < 1 << 3 * digits else 0


def _seconds(nanoseconds: int) -> bytes:
    sign = b"-" if nanoseconds < 0 else b""
    whole, fraction = divmod(abs(nanoseconds), 1_000_000_000)
    return sign + (b"%d.%09d" % (whole, fraction)).rstrip(b"0").rstrip(b".")


def _pax_record(key: bytes, value: bytes) -> bytes:
    rest = len(key) + len(value) + 3  # the blank, the equals sign, the line break
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)
