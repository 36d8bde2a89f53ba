"""Children that have ended, collected by whoever is a parent or subreaper."""

from __future__ import annotations

import os
from collections.abc import Iterator


def collect() -> Iterator[tuple[int, int]]:
    """Pid and exit code of each that has ended by now, orphans too; where a signal ended it the code is 128 more than its
    number, as shells have it."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        code = os.waitstatus_to_exitcode(status)
        yield pid, 128 - code if code < 0 else code
