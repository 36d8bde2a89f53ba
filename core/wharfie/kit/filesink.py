"""A log sink for the rules of runtime drivers: one JSON object a piece, in the file that the option `path` names."""

from __future__ import annotations

import json

from wharfie.spi.driver import Strings
from wharfie.spi.log import LogSink, Stream


class FileSink(LogSink):
    """Writes what it is given, at once."""

    def __init__(self, options: Strings) -> None:
        self._file = open(options["path"], "a")  # noqa: SIM115 - closed by `close`

    def write(self, stream: Stream, data: memoryview, time_ns: int, partial: bool) -> None:
        self._file.write(json.dumps({"stream": stream, "data": bytes(data).decode(), "partial": partial}) + "\n")

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()
