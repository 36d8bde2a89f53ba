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
        return reader.FileReader(Path(options["path"]), Lines(), _Decoder().decode, query)

    def path(self, container: ContainerFacts, options: Strings) -> str:
        return options["path"]

    def remove(self, container: ContainerFacts, options: Strings) -> None:
        reader.remove(Path(options["path"]))


class _Decoder:
    """One log's lines, read one after another."""

    def __init__(self) -> None:
        self._stamps = StampReader()

    def decode(self, lines: Sequence[bytes]) -> Iterator[LogRun]:
        """Lines that were read from the container at once differ in their text only: the end is looked into but once."""
        texts: list[bytes] = []
        end, text_end = b"", 0
        for line in lines:
            if texts and line.endswith(end) and line.startswith(_BEGIN):
                texts.append(line[_TEXT:text_end])
                continue
            if texts:
                yield from self._decode_texts(texts, end)
                texts = []
            text_end = line.find(_END)  # within a text it would have backslashes before the quotes
            if line.startswith(_BEGIN) and text_end >= _TEXT and line[text_end - 1] != _BACKSLASH:
                texts.append(line[_TEXT:text_end])
                end = line[text_end:]
                text_end = -len(end)
            else:  # a piece of a long line, or not written by us or Docker Engine
                yield from self._decode_line(line)
        if texts:
            yield from self._decode_texts(texts, end)

    def _decode_texts(self, texts: Sequence[bytes], end: bytes) -> Iterator[LogRun]:
        """Lines cut into what is between `_BEGIN` and `end`."""
        first = next(self._decode_line(_BEGIN + end), None)
        if first is None:
            return
        if b"\\" not in b"".join(texts):
            pieces = [text + b"\n" for text in texts]
        else:
            try:
                array = json.loads(b'["' + b'\\n","'.join(texts) + b'\\n"]')
            except ValueError:
                for text in texts:
                    yield from self._decode_line(_BEGIN + text + end)
                return
            pieces = [text.encode("utf-8", "replace") for text in array]
        yield LogRun(stream=first.stream, pieces=pieces, time_ns=first.time_ns, attributes=first.attributes)

    def _decode_line(self, line: bytes) -> Iterator[LogRun]:
        try:
            entry = json.loads(line)
            yield LogRun(
                stream="stderr" if entry["stream"] == "stderr" else "stdout",
                pieces=(entry.get("log", "").encode("utf-8", "replace"),),
                time_ns=self._stamps.nanoseconds(entry["time"]),
                attributes=entry.get("attrs") or {},
            )
        except (ValueError, KeyError, TypeError, AttributeError):  # zeros after a power cut, a foreign hand
            return
