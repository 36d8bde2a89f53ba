"""A shim's life on a stage: played in the zygote before the first fork.

The interpreter rewrites a function's code as it is called again and again, and remembers what it has looked up. Each shim
that did this by itself would have the pages to itself; after a few rounds here all of them share the result.

An engine's or a sink's module may have a function `rehearse()`, which is called as often: it does what each shim will do,
and leaves nothing behind. A module without it costs each of its shims some tens of kilobytes more.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wharfie.shim.engine import Engine, Streams
from wharfie.shim.folder import REQUEST, write
from wharfie.shim.process import serve
from wharfie.shim.protocol import send
from wharfie.shim.system import PR_SET_CHILD_SUBREAPER, prctl
from wharfie.spi.log import LogSink, Stream

ROUNDS = 12
"""The interpreter looks at a function after eight calls, and needs a few more for what is in it."""
_SECONDS = 10
"""After which what is left of a rehearsal ends, whatever became of the zygote."""


def rehearse(path: str) -> None:
    """Play in the folder `path`, which is made and removed. Leaves descriptors open. Errors: OSError."""
    handler = signal.getsignal(signal.SIGCHLD)
    bundle = Path(f"{path}-bundle")
    bundle.mkdir(mode=0o700, exist_ok=True)
    try:
        (bundle / "config.json").write_text('{"process": {}}')
        for _ in range(ROUNDS):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _play(path, str(bundle))
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, handler)
        prctl(PR_SET_CHILD_SUBREAPER, 0)
        (bundle / "config.json").unlink()
        bundle.rmdir()


def _play(path: str, bundle: str) -> None:
    Path(path).mkdir(mode=0o700, exist_ok=True)
    request = {
        "id": "rehearsal",
        "bundle": bundle,
        "engine": f"{__name__}:_Actor",
        "options": {},
        "rootfs": [],
        "io": {
            "stdin": False,
            "stdin_once": False,
            "terminal": False,
            "size": None,
            "log": {"sink": f"{__name__}:_Silence", "options": {}},
        },
        "preparation": {"files": [], "user": "", "groups": [], "copy_up": [], "resolver": ""},
    }
    write(f"{path}/{REQUEST}", request)
    daemon, connection = socket.socketpair()
    with daemon:
        for do in ("start", "state", "delete"):
            send(daemon, {"version": 1, "request": 1, "do": do, "force": True})
        serve(path, connection.detach())


class _Silence(LogSink):
    def write(self, stream: Stream, data: memoryview, time_ns: int, partial: bool) -> None:
        pass

    def close(self) -> None:
        pass


class _Actor(Engine):
    """Its container is a process that waits to be killed."""

    def create(self, rootfs: Path, streams: Streams) -> int:
        pid = os.fork()
        if pid == 0:
            signal.alarm(_SECONDS)
            os.write(streams.stdout, b"line\n")
            while True:
                signal.pause()
        return pid

    def start(self) -> None:
        pass

    def exec(self, process: Mapping[str, Any], streams: Streams) -> int:
        return 0

    def signal_all(self, signal: int) -> None:
        pass

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass

    def update(self, resources: Mapping[str, Any]) -> None:
        pass

    def stats(self) -> Mapping[str, Any]:
        return {}

    def pids(self) -> Sequence[int]:
        return ()

    def oom_fd(self) -> int:
        return -1

    def oom_killed(self) -> bool:
        return False

    def delete(self) -> None:
        pass
