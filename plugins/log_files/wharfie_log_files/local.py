"""`local`: Docker's compact format, rotated and compressed by default."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from wharfie.spi import log_options
from wharfie.spi.driver import ContainerFacts, Strings
from wharfie.spi.log import LogCapability, LogDriver, LogQuery, LogReader, LogRun, Stream
from wharfie_log_files import options as opts
from wharfie_log_files import reader
from wharfie_log_files.framing import Records
from wharfie_log_files.options import Rotation

_DEFAULT = Rotation(max_size=20 * 1024 * 1024, max_file=5, compress=True)
_SOURCE, _TIME, _LINE, _PARTIAL = 1, 2, 3, 4  # field numbers of LogEntry in moby's entry.proto
_VARINT, _BYTES = 0, 2  # wire types of protobuf


class LocalLogDriver(LogDriver):
    """Keeps a container's output in `local-logs/container.log` of its folder."""

    name: ClassVar[str] = "local"
    spi: ClassVar[str] = "1.0"
    sink: ClassVar[str] = "wharfie_log_files.sink:LocalSink"

    def capabilities(self) -> frozenset[LogCapability]:
        return frozenset((LogCapability.READ,))

    def plan(self, container: ContainerFacts, options: Strings) -> Strings:
        log_options.check_names(options, opts.KNOWN, "unknown log opt '{}' for log driver local")
        rotation = opts.rotation(options, _DEFAULT)
        path = opts.folder(container) / "local-logs" / "container.log"
        return opts.sink_options(path, rotation, log_options.attributes(container, options))

    def open_reader(self, container: ContainerFacts, options: Strings, query: LogQuery) -> LogReader:
        # The attributes are the same for every entry of a container, so the file does not repeat them.
        attributes = json.loads(options.get("attrs", "{}"))
        return reader.FileReader(
            Path(options["path"]),
            Records(),
            lambda block: decode(block, attributes),
            query,
            rotates=opts.rotates(options),
        )

    def remove(self, container: ContainerFacts, options: Strings) -> None:
        path = Path(options["path"])
        reader.remove(path)
        try:
            path.parent.rmdir()
        except FileNotFoundError:
            pass


def decode(block: bytes, attributes: Mapping[str, str]) -> Iterator[LogRun]:
    """Runs of neighbours with the same time, as they were written."""
    read = (entry for record in Records().split(block) if (entry := _decode(record)) is not None)
    for (stream, time_ns, whole), entries in itertools.groupby(
        read, key=lambda entry: (*entry[:2], entry[2][-1:] == b"\n")
    ):
        found = [entry[2] for entry in entries]
        for data in (b"".join(found),) if whole else found:
            yield LogRun(stream=stream, data=data, time_ns=time_ns, attributes=attributes)


def _decode(record: bytes) -> tuple[Stream, int, bytes] | None:
    """A LogEntry message; fields that are not known are passed over, as protobuf asks for. None: damaged."""
    numbers: dict[int, int] = {}
    texts: dict[int, bytes] = {}
    position = 0
    try:
        while position < len(record):
            tag, position = _varint(record, position)
            value, position = _varint(record, position)
            if tag & 7 == _BYTES:
                texts[tag >> 3] = record[position : position + value]
                position += value
            elif tag & 7 == _VARINT:
                numbers[tag >> 3] = value
            else:
                return None
    except IndexError:
        return None
    if position != len(record) or _TIME not in numbers:
        return None
    line = texts.get(_LINE, b"")
    stream: Stream = "stderr" if texts.get(_SOURCE) == b"stderr" else "stdout"
    return stream, numbers[_TIME], line if numbers.get(_PARTIAL) else line + b"\n"


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The number at `position` and where it ends. Raises IndexError."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
