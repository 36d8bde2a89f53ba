"""Reading a container's log back from a plugin: a stream of entries, with an end or without."""

from __future__ import annotations

import http.client
import os
import select
import socket
import threading
from collections.abc import Sequence

from wharfie.spi.log import LogEntry, LogQuery
from wharfie_docker_plugins.entries import Damaged, split

_CHUNK = 64 * 1024
_END_SECONDS = 30.0
"""Without following, the plugin's answer has an end; this long may it be silent before it."""
_PAUSE_SECONDS = 0.1
"""When following: a piece that is on its way while the container ends is waited for."""


class StreamReader:
    """HTTP's framing and TLS are undone by a thread, which writes what comes into a pipe: the descriptor that is polled."""

    def __init__(self, answer: http.client.HTTPResponse, connection: socket.socket, query: LogQuery) -> None:
        self._answer = answer
        self._connection = connection
        self._query = query
        self._data = bytearray()
        self._entries: list[LogEntry] = []
        self._ended = self._closed = False
        self._out, self._in = os.pipe()
        os.set_blocking(self._out, False)
        self._connection.settimeout(None)
        threading.Thread(target=self._pump, name="legacy-log", daemon=True).start()

    def fileno(self) -> int:
        return self._out

    def read(self, limit: int) -> Sequence[LogEntry]:
        wait = _PAUSE_SECONDS if self._query.follow else _END_SECONDS
        while not self._entries and not self._ended and self._wait(wait):
            self._take()
        found, self._entries = self._entries[:limit], self._entries[limit:]
        return found

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self._connection.shutdown(socket.SHUT_RDWR)  # the thread's read ends
        except OSError:
            pass
        self._connection.close()
        os.close(self._out)

    def _wait(self, seconds: float) -> bool:
        return bool(select.select([self._out], [], [], seconds)[0])

    def _take(self) -> None:
        try:
            piece = os.read(self._out, _CHUNK)
        except BlockingIOError:
            return
        self._ended = not piece
        self._data += piece
        try:
            self._entries += [entry for entry in split(self._data) if self._is_wanted(entry)]
        except Damaged:
            self._ended = True

    def _is_wanted(self, entry: LogEntry) -> bool:
        """Plugins that do not know Since and Until send everything."""
        query = self._query
        return entry.time_ns >= query.since_ns and (not query.until_ns or entry.time_ns <= query.until_ns)

    def _pump(self) -> None:
        try:
            while piece := self._answer.read1(_CHUNK):
                view = memoryview(piece)
                while view:
                    view = view[os.write(self._in, view) :]
        except (OSError, ValueError, http.client.HTTPException):
            pass  # the plugin or the reader is gone
        finally:
            os.close(self._in)
            self._answer.close()
