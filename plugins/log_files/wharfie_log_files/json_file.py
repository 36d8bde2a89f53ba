"""`json-file`: Docker's default, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from wharfie.spi import log_options
from wharfie.spi.driver import ContainerFacts, Strings
from wharfie.spi.log import LogCapability, LogDriver, LogQuery, LogReader, LogRun
from wharfie_log_files import options as opts
from wharfie_log_files import reader
from wharfie_log_files.framing import Lines
from wharfie_log_files.options import Rotation
from wharfie_log_files.stamps import StampReader

_BEGIN = b'{"log":"'
_TEXT = len(_BEGIN)
_WINDOW = 4096
_BACKSLASH = ord("\\")
_END = b'\\n","stream":"'
_DEFAULT = Rotation(max_size=0, max_file=1, compress=False)


class JsonFileDriver(LogDriver):
    """Keeps a container's output in `ID-json.log` of its folder."""

    name: ClassVar[str] = "json-file"
    spi: ClassVar[str] = "1.0"
    sink: ClassVar[str] = "wharfie_log_files.sink:JsonFileSink"

    def capabilities(self) -> frozenset[LogCapability]:
        return frozenset((LogCapability.READ,))

    def plan(self, container: ContainerFacts, options: Strings) -> Strings:
        log_options.check_names(options, opts.KNOWN, "unknown log opt '{}' for json-file log driver")
        rotation = opts.rotation(options, _DEFAULT)
        path = opts.folder(container) / f"{container.id}-json.log"
        return opts.sink_options(path, rotation, log_options.attributes(container, options))

    def open_reader(self, container: ContainerFacts, options: Strings, query: LogQuery) -> LogReader:
        return reader.FileReader(Path(options["path"]), Lines(), _Decoder().decode, query, rotates=opts.rotates(options))

    def path(self, container: ContainerFacts, options: Strings) -> str:
        return options["path"]

    def remove(self, container: ContainerFacts, options: Strings) -> None:
        reader.remove(Path(options["path"]))


class _Decoder:
    """One log's lines, read one after another."""

    def __init__(self) -> None:
        self._stamps = StampReader()

    def decode(self, block: bytes) -> Iterator[LogRun]:
        """Lines that were read from the container at once differ in their text only: what is after it is looked into but
        once, and they stay together."""
        start = 0
        while start < len(block):
            stop = block.index(b"\n", start)
            text_end = block.find(_END, start, stop)  # within a text it would have backslashes before the quotes
            run = None
            if block.startswith(_BEGIN, start) and text_end >= start + _TEXT and block[text_end - 1] != _BACKSLASH:
                end = block[text_end:stop]
                stop = _last(block, end, stop)
                tail = -len(end)
                texts = [line[_TEXT:tail] for line in block[start:stop].split(b"\n")]
                if (end + b"\n" + _BEGIN).join(texts) == block[start + _TEXT : stop + tail]:  # nothing else was cut off
                    run = self._decode_run(texts, end)
            if run is not None:
                yield run
            else:  # pieces of long lines, or not written by us or Docker Engine
                for line in block[start:stop].split(b"\n"):
                    yield from self._decode_line(line)
            start = stop + 1

    def _decode_run(self, texts: Sequence[bytes], end: bytes) -> LogRun | None:
        """None: they cannot be read together."""
        first = next(self._decode_line(_BEGIN + end), None)
        if first is None:
            return None
        data = b"\n".join((*texts, b""))
        if b"\\" in data:
            try:
                data = json.loads(b'"' + data.replace(b"\n", b"\\n") + b'"').encode("utf-8", "replace")
            except ValueError:
                return None
        return LogRun(stream=first.stream, data=data, time_ns=first.time_ns, attributes=first.attributes)

    def _decode_line(self, line: bytes) -> Iterator[LogRun]:
        try:
            entry = json.loads(line)
            yield LogRun(
                stream="stderr" if entry["stream"] == "stderr" else "stdout",
                data=entry.get("log", "").encode("utf-8", "replace"),
                time_ns=self._stamps.nanoseconds(entry["time"]),
                attributes=entry.get("attrs") or {},
            )
        except (ValueError, KeyError, TypeError, AttributeError):  # zeros after a power cut, a foreign hand
            return


def _last(block: bytes, end: bytes, start: int) -> int:
    """Where the last line ends that has this `end` and is not far behind a line that ends at `start`, as it has."""
    window = _WINDOW
    while (found := block.rfind(end + b"\n", start, start + window)) >= 0:
        start = found + len(end)
        window *= 2
    return start
