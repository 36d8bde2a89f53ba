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
from typing import Any, NoReturn

from wharfie.shim.engine import Engine, Streams
from wharfie.shim.folder import REQUEST, remove, write
from wharfie.shim.process import serve
from wharfie.shim.protocol import send
from wharfie.shim.system import PR_SET_CHILD_SUBREAPER, prctl
from wharfie.spi.log import LogSink, Stream

_PREFIX = ".rehearsal-"  # no container's id begins like this
_BUNDLE = "-bundle"
ROUNDS = 12
"""The interpreter looks at a function after eight calls, and needs a few more for what is in it."""


def rehearse(run: str) -> None:
    """Play in a folder in `run`, which is made and removed. Leaves descriptors open. Any error: shims work all the same."""
    handler = signal.getsignal(signal.SIGCHLD)
    _sweep(run)
    path = f"{run}/{_PREFIX}{os.getpid()}"
    bundle = Path(f"{path}{_BUNDLE}")
    bundle.mkdir(mode=0o700)
    try:
        (bundle / "config.json").write_text('{"process": {}}')
        for _ in range(ROUNDS):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _play(path, str(bundle))
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, handler)
        prctl(PR_SET_CHILD_SUBREAPER, 0)
        _remove(path)


def _sweep(run: str) -> None:
    """What zygotes left that were killed on the stage. A killed daemon's may still be playing."""
    for entry in sorted(Path(run).iterdir()):
        name = entry.name
        pid = name.removeprefix(_PREFIX).removesuffix(_BUNDLE)
        if name.startswith(_PREFIX) and not Path(f"/proc/{pid}").exists():
            _remove(f"{run}/{_PREFIX}{pid}")


def _remove(path: str) -> None:
    remove(path)
    bundle = Path(f"{path}{_BUNDLE}")
    (bundle / "config.json").unlink(missing_ok=True)
    if bundle.exists():
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
            "stdin": True,
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


def _wait(streams: Streams) -> NoReturn:
    """Until killed, or until nobody is left who could: then the input ends."""
    for number, fd in enumerate((streams.stdin, streams.stdout)):
        os.dup2(fd, number)
    os.closerange(2, os.sysconf("SC_OPEN_MAX"))
    os.write(1, b"line\n")
    os.read(0, 1)
    os._exit(0)


class _Silence(LogSink):
    def write(self, stream: Stream, data: memoryview, time_ns: int, partial: bool) -> None:
        pass

    def close(self) -> None:
        pass


class _Actor(Engine):
    """Its container is a process that says a line and waits to be killed."""

    def create(self, rootfs: Path, streams: Streams) -> int:
        pid = os.fork()
        if pid == 0:
            _wait(streams)
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
