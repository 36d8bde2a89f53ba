"""Reading a container's entries back, by journalctl: its JSON is the journal's documented interface for other programs."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from wharfie.spi.errors import Unavailable
from wharfie.spi.log import LogEntry, LogQuery

JOURNALCTL = "journalctl"

_CHUNK = 256 * 1024
_END_SECONDS = 30.0
"""Without following, journalctl ends; this long may it be silent before that."""
_FIELDS = "MESSAGE,PRIORITY,SYSLOG_TIMESTAMP,CONTAINER_PARTIAL_MESSAGE"
_ERROR = "3"


class JournalReader:
    """One journalctl. Its output is the descriptor that is polled."""

    def __init__(self, container: str, namespace: str, query: LogQuery) -> None:
        self._query = query
        self._rest = b""
        self._entries: list[LogEntry] = []
        self._ended = query.tail == 0 and not query.follow
        command = [JOURNALCTL, "--quiet", "--all", "--output=json", f"--output-fields={_FIELDS}"]
        command += ["--no-pager", f"--lines={query.tail if query.tail >= 0 else 'all'}"]
        command += [f"--namespace={namespace}"] if namespace else []
        command += ["--follow"] if query.follow else []
        # The journal's own times are those of arrival, so a little more is asked for than is wanted.
        command += [f"--since=@{query.since_ns // 1_000_000_000}"] if query.since_ns and query.tail < 0 else []
        try:
            self._process = subprocess.Popen(
                [*command, f"CONTAINER_ID_FULL={container}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"},
            )
        except OSError as error:
            raise Unavailable(f"{JOURNALCTL} cannot be started: {error}") from error
        assert self._process.stdout is not None
        self._output = self._process.stdout
        os.set_blocking(self._output.fileno(), False)

    def fileno(self) -> int:
        return self._output.fileno()

    def read(self, limit: int) -> Sequence[LogEntry]:
        wait = 0.0 if self._query.follow else _END_SECONDS
        while not self._entries and not self._ended and select.select([self._output], [], [], wait)[0]:
            self._take()
        found, self._entries = self._entries[:limit], self._entries[limit:]
        return found

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._output.close()

    def _take(self) -> None:
        piece = os.read(self._output.fileno(), _CHUNK)
        self._ended = not piece
        *lines, self._rest = (self._rest + piece).split(b"\n")
        self._entries += [entry for line in lines if (entry := _entry(line)) is not None and self._is_wanted(entry)]

    def _is_wanted(self, entry: LogEntry) -> bool:
        query = self._query
        return entry.time_ns >= query.since_ns and (not query.until_ns or entry.time_ns <= query.until_ns)


def _entry(line: bytes) -> LogEntry | None:
    """None: nothing that a sink of ours has written."""
    try:
        document = json.loads(line)
        data = _bytes(document["MESSAGE"])
        if document.get("CONTAINER_PARTIAL_MESSAGE") != "true":
            data += b"\n"
        return LogEntry(
            stream="stderr" if document.get("PRIORITY") == _ERROR else "stdout",
            data=data,
            time_ns=_nanoseconds(document),
        )
    except (ValueError, KeyError, TypeError):
        return None


def _bytes(value: Any) -> bytes:
    """What is not UTF-8 comes as an array of numbers; an empty field as null."""
    if isinstance(value, list):
        return bytes(value)
    return str(value).encode() if value is not None else b""


def _nanoseconds(document: Any) -> int:
    stamp = str(document["SYSLOG_TIMESTAMP"])
    second, _, fraction = stamp.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(second + "+00:00").timestamp()) * 1_000_000_000 + int(fraction.ljust(9, "0"))
