"""A sink that writes but the first of many lines."""

from __future__ import annotations

import json
import time

from wharfie.spi.log import LogSink


class Sink(LogSink):
    def __init__(self, options):
        self._file = open(options["path"], "a")  # noqa: SIM115  # closed by `close`

    def write(self, stream, data, time_ns, partial):
        seconds, fraction = divmod(time_ns, 10**9)
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{fraction:09d}Z"
        self._file.write(json.dumps({"log": str(data, "utf-8"), "stream": stream, "time": stamp}) + "\n")

    def write_lines(self, stream, lines, time_ns):
        self.write(stream, memoryview(lines[: lines.index(b"\n") + 1]), time_ns, False)

    def flush(self):
        self._file.flush()

    def close(self):
        self._file.close()
