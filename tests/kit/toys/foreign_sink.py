"""A sink that writes as it should, and imports what a shim does not have to have."""

from __future__ import annotations

import json
import time

from wharfie.spi.log import LogSink


class Sink(LogSink):
    def __init__(self, options):
        self.file = open(options["path"], "a")  # noqa: SIM115 - closed with the process

    def write(self, stream, data, time_ns, partial):
        import wharfie.kit.rules

        seconds, rest = divmod(time_ns, 10**9)
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09}Z"
        self.file.write(json.dumps({"log": bytes(data).decode(), "stream": stream, "time": stamp}) + "\n")

    def flush(self):
        self.file.flush()

    def close(self):
        self.file.close()
