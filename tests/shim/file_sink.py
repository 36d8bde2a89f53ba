"""A log sink that writes each piece as a line of JSON."""

from __future__ import annotations

import json

from wharfie.spi.driver import Strings
from wharfie.spi.log import LogSink, Stream


class FileSink(LogSink):
    def __init__(self, options: Strings) -> None:
        self._file = open(options["path"], "a")  # noqa: SIM115  # open as long as the container lives
        self._limit = int(options.get("limit", 1 << 60))

    def write(self, stream: Stream, data: memoryview, time_ns: int, partial: bool) -> None:
        if self._file.tell() > self._limit:
            raise OSError(28, "No space left on device")
        self._file.write(json.dumps([stream, bytes(data).decode("latin-1"), partial]) + "\n")

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.write('["closed", "", false]\n')
        self._file.close()
