"""Output cut into lines for a log sink."""

from __future__ import annotations

from wharfie.spi.log import LINE_LIMIT, LogSink, Stream


class LogLines:
    """Gives a sink whole lines, or pieces of LINE_LIMIT bytes of longer ones, all with the time of their read.

    A sink that fails (a full disk, a defect) loses that piece; the container goes on and the failure is counted.
    """

    def __init__(self, sink: LogSink) -> None:
        self._sink = sink
        self._rest: dict[Stream, bytes] = {}
        self.failures = 0
        self.last_failure = ""

    def write(self, stream: Stream, data: bytes, time_ns: int) -> None:
        rest = self._rest.get(stream)
        if rest:
            data = rest + data
        start, length = 0, len(data)
        while start < length:
            end = _lines_end(data, start)
            try:
                if end > start:
                    self._sink.write_lines(stream, data[start:end], time_ns)
                elif length - start >= LINE_LIMIT:
                    end = start + LINE_LIMIT
                    self._sink.write(stream, memoryview(data)[start:end], time_ns, True)
                else:
                    break
            except Exception as error:  # noqa: BLE001  # a defect of a sink must not end the container
                self._failed(error)
            start = end
        self._rest[stream] = data[start:] if start < length else b""
        self._flush()

    def end(self, stream: Stream, time_ns: int) -> None:
        """The stream has ended: what is left is a line without an end."""
        rest = self._rest.pop(stream, b"")
        if rest:
            try:
                self._sink.write(stream, memoryview(rest), time_ns, False)
            except Exception as error:  # noqa: BLE001  # a defect of a sink must not end the container
                self._failed(error)
            self._flush()

    def close(self) -> None:
        try:
            self._sink.close()
        except Exception as error:  # noqa: BLE001  # a defect of a sink must not end the container
            self._failed(error)

    def _flush(self) -> None:
        try:
            self._sink.flush()
        except Exception as error:  # noqa: BLE001  # a defect of a sink must not end the container
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        self.last_failure = str(error)


def _lines_end(data: bytes, start: int) -> int:
    """Where the whole lines from `start` on end, before the first one that is longer than LINE_LIMIT or has no end yet."""
    end = start
    while border := data.rfind(b"\n", end, end + LINE_LIMIT) + 1:
        end = border
    return end
