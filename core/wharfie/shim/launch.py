"""The daemon's side of the zygote: starting it from a sealed interpreter, handing jobs to it, starting it again."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

from wharfie.shim.attendant import Attendant
from wharfie.shim.protocol import Broken, Reader, error_from_message
from wharfie.spi.errors import DriverError, Unavailable

SERVE = b"S"
CLEAN = b"C"
READY = b"R"
_START = 10.0
"""Seconds that a zygote may take from its start to its first job: it imports and rehearses, and a machine may be busy."""
_IMPORT = 10.0
"""Seconds that a ready one may take for further modules."""
_BOOT = """
import sys
sys.path[:0] = sys.argv[4:]
from wharfie.shim.zygote import main
main(int(sys.argv[1]), sys.argv[2], [sys.argv[3]])
"""


def folder_of(module: str) -> str:
    """The folder from which the top package of `module` is imported. Errors: DriverError."""
    top = module.partition(".")[0]
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        raise DriverError(f"{module}: there is no package {top}; install the distribution that has it")
    place = Path(spec.origin).resolve()
    return str(place.parent.parent if spec.submodule_search_locations else place.parent)


class Zygote:
    """A running zygote, started on first use and again whenever it has ended. Safe for all threads."""

    def __init__(self, module: str, run: Path) -> None:
        """`module`: the engine's. `run`: the folder of the containers' folders."""
        self._module = module
        self._run = run
        self._lock = threading.Lock()
        self._attendant: Attendant | None = None
        self._loaded: set[str] = set()

    def submit(self, job: bytes, folder: Path, modules: Sequence[str], connection: socket.socket) -> None:
        """Have a shim forked that talks on `connection`, of which the caller closes its own copy.

        `job`: SERVE or CLEAN. `modules`: what this one needs beyond the engine. Errors: Unavailable, DriverError.
        """
        message = job + os.fsencode(folder)
        with self._lock:
            for _ in range(2):
                try:
                    channel = (self._attendant or self._start()).channel
                    self._load(channel, modules)
                    socket.send_fds(channel, [message], [connection.fileno()], socket.MSG_NOSIGNAL)
                except OSError:  # it was killed, or is stuck: once more with a new one
                    self._end()
                else:
                    return
        raise Unavailable(
            "the zygote, which shims are forked from, ends or hangs at once; its own words are in the daemon's output"
        )

    def _load(self, channel: socket.socket, modules: Sequence[str]) -> None:
        """Have modules imported for all shims to come. Errors: DriverError, OSError."""
        missing = [module for module in modules if module not in self._loaded]
        if not missing:
            return
        message = b"L" + json.dumps([(module, folder_of(module)) for module in missing]).encode()
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                socket.send_fds(channel, [message], [theirs.fileno()], socket.MSG_NOSIGNAL)
            ours.settimeout(_IMPORT)
            try:
                ours.recv(1, socket.MSG_PEEK)
                answers = Reader(ours).read()
            except (TimeoutError, Broken) as error:
                self._end()  # it hangs in the import, or did not survive it; the next container gets a new one
                how = f" within {_IMPORT:g} s" if isinstance(error, TimeoutError) else ": it ends the process"
                raise DriverError(f"{', '.join(missing)}: cannot be imported by a shim's bare interpreter{how}") from None
        for answer, _ in answers:
            if "error" in answer:
                raise error_from_message(answer["error"])
        self._loaded.update(missing)

    def end(self) -> None:
        """End the process; shims go on. May be repeated; `submit` starts another one."""
        with self._lock:
            self._end()

    @property
    def pid(self) -> int:
        """0 when it is not running."""
        attendant = self._attendant
        return attendant.pid if attendant is not None else 0

    def _start(self) -> Attendant:
        """Errors: OSError (it ended, or is not ready in time)."""
        folders = dict.fromkeys([folder_of("wharfie"), folder_of(self._module)])
        self._attendant = attendant = Attendant(_BOOT, [str(self._run), self._module, *folders])
        self._loaded = set()
        attendant.channel.settimeout(_START)
        if attendant.channel.recv(len(READY)) != READY:
            raise ConnectionError("the zygote has ended")
        attendant.channel.settimeout(_IMPORT)
        return attendant

    def _end(self) -> None:
        attendant, self._attendant = self._attendant, None
        if attendant is not None:
            attendant.end()
