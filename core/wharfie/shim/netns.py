"""Work inside a container's network namespace, for network drivers.

setns(2) changes the calling thread only, so the work gets a thread of its own that ends with it: no thread of the daemon
can be left behind in a container's namespace, whatever the work does.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from wharfie.shim.system import CLONE_NEWNET, setns

T = TypeVar("T")


def within(path: Path, work: Callable[[], T]) -> T:
    """The result of `work()`, run in the network namespace `path` (/proc/PID/ns/net); what it raises is raised here.

    Sockets opened and files under /proc/sys/net opened by `work` belong to that namespace; sockets keep belonging to it.
    Errors: FileNotFoundError, ProcessLookupError (the namespace is gone), OSError of setns.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def enter() -> None:
        try:
            setns(target, CLONE_NEWNET)
            results.append(work())
        except BaseException as failure:  # noqa: BLE001 - handed to the caller, who raises it
            failures.append(failure)

    target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        thread = threading.Thread(target=enter, name="netns", daemon=True)
        thread.start()
        thread.join()
    finally:
        os.close(target)
    if failures:
        raise failures[0]
    return results[0]
