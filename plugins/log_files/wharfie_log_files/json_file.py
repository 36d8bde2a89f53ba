"""`json-file`: Docker's default, one JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

from wharfie.spi import log_options
from wharfie.spi.driver import ContainerFacts, Strings
from wharfie.spi.log import LogCapability, LogDriver, LogEntry, LogQuery, LogReader
from wharfie_log_files import options as opts
from wharfie_log_files import reader
from wharfie_log_files.framing import Lines
from wharfie_log_files.options import Rotation
from wharfie_log_files.stamps import StampReader

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

    def decode(self, line: bytes) -> LogEntry | None:
        try:
            entry = json.loads(line)
            return LogEntry(
                stream="stderr" if entry["stream"] == "stderr" else "stdout",
                data=entry.get("log", "").encode("utf-8", "replace"),
                time_ns=self._stamps.nanoseconds(entry["time"]),
                attributes=entry.get("attrs") or {},
            )
        except (ValueError, KeyError, TypeError, AttributeError):  # zeros after a power cut, a foreign hand
            return None
