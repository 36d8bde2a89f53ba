"""The process that workers are forked from: one thread, everything imported, nothing opened.

Run by `launcher` on a bare interpreter. Each message on its socket is a request (JSON) with descriptors: the worker's
connection to the daemon, and for a running container its mount namespace. The answer is a pidfd of the worker.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
from collections.abc import Mapping
from typing import Any

from wharfie.engine.files import worker
from wharfie.shim.system import PR_SET_DUMPABLE, prctl, set_name

MESSAGE_LIMIT = 1 << 18
"""Bytes of one request."""
_DESCRIPTORS = 2
_REAP_MS = 500
_PR_SET_PDEATHSIG = 1


def main(channel: int) -> None:
    """Serve until the daemon closes its end."""
    set_name("wharfie-files")
    prctl(PR_SET_DUMPABLE, 0)
    gc.disable()
    gc.freeze()
    daemon = socket.socket(fileno=channel)
    poller = select.poll()
    poller.register(daemon, select.POLLIN)
    children = 0
    while True:
        ready = poller.poll(_REAP_MS if children else None)
        children -= _reap()
        if not ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(daemon, MESSAGE_LIMIT, _DESCRIPTORS)
        if not message:
            return
        child = os.fork()
        if child == 0:
            daemon.close()
            _work(json.loads(message), descriptors)
        children += 1
        pidfd = os.pidfd_open(child)
        with contextlib.suppress(BrokenPipeError):
            socket.send_fds(daemon, [b"1"], [pidfd])
        for descriptor in (*descriptors, pidfd):
            os.close(descriptor)


def _reap() -> int:
    """How many workers have ended."""
    count = 0
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            count += 1
    return count


def _work(request: Mapping[str, Any], descriptors: list[int]) -> None:
    """Never returns."""
    code = 1
    try:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        prctl(PR_SET_DUMPABLE, 0)
        gc.enable()
        client = socket.socket(fileno=descriptors[0])
        worker.serve(worker.Client(client), request, descriptors[1] if len(descriptors) > 1 else None)
        client.close()
        code = 0
    finally:
        os._exit(code)
