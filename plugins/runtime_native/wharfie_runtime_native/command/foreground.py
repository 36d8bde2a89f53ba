"""Standing in for a process in the foreground: `run` and `exec` without --detach.

Signals go on to the process, a terminal's bytes to and from this one's own streams, and its exit code becomes this one's.
"""

from __future__ import annotations

import os
import select
import signal as signals
import socket
import struct
import termios
import tty
from collections.abc import Mapping
from fcntl import ioctl
from types import TracebackType
from typing import Any, Final

from wharfie.shim.children import collect
from wharfie.shim.engine import Streams
from wharfie_runtime_native.constants import TIOCSWINSZ

_CHUNK: Final = 65536
_OWN: Final = frozenset(
    getattr(signals, f"SIG{name}")
    for name in (
        *("KILL", "STOP", "TSTP", "TTIN", "TTOU", "PIPE", "URG"),
        *("FPE", "ILL", "SEGV", "BUS", "ABRT", "TRAP", "SYS"),
    )
)
"""Not passed on: they cannot be caught, or mean this process itself."""


class Foreground:
    """Catches signals from `with` on, so that none is lost while the process is made."""

    def __init__(self, process: Mapping[str, Any]) -> None:
        self._terminal = bool(process.get("terminal"))
        self._master = -1
        self._raw: list[Any] | None = None
        self._inputs: list[int] = []
        if self._terminal:
            self._ours, self._theirs = socket.socketpair()
            self.streams = Streams(console=self._theirs.fileno(), size=_own_size())
        else:
            self.streams = Streams(stdin=0, stdout=1, stderr=2)

    def __enter__(self) -> Foreground:
        self._woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signals.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in signals.valid_signals() - _OWN:
            try:
                signals.signal(number, _note)
            except OSError:  # libc keeps 32 and 33 to itself
                continue
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._raw is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._raw)

    def wait(self, pid: int) -> int:
        """The exit code of this child, 128 more than the signal's number where one ended it."""
        if self._terminal:
            self._take_terminal()
        while True:
            ready, _, _ = select.select([self._woken, *self._inputs], [], [])
            for fd in ready:
                if fd != self._woken:
                    self._copy(fd)
            if self._woken in ready:
                for number in os.read(self._woken, _CHUNK):
                    self._handle(number, pid)
                if pid in (ended := dict(collect())):
                    self._drain()
                    return ended[pid]

    def _handle(self, number: int, pid: int) -> None:
        if number == signals.SIGWINCH and self._master >= 0:
            self._resize()
        elif number != signals.SIGCHLD:
            os.kill(pid, number)  # a child that has not been reaped: nobody else has its pid

    def _take_terminal(self) -> None:
        """The master has arrived while the process was made."""
        _, (self._master, *_), _, _ = socket.recv_fds(self._ours, 64, 1)
        self._inputs = [0, self._master]
        if os.isatty(0):
            self._raw = termios.tcgetattr(0)
            tty.setraw(0)
            self._resize()

    def _resize(self) -> None:
        if size := _own_size():
            ioctl(self._master, TIOCSWINSZ, struct.pack("HHHH", size[0], size[1], 0, 0))

    def _copy(self, fd: int) -> bool:
        """Whether there was something."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # EIO: nobody has the terminal open any more
            data = b""
        if not data:
            self._inputs.remove(fd)
            return False
        target = self._master if fd == 0 else 1
        while data:
            data = data[os.write(target, data) :]
        return True

    def _drain(self) -> None:
        """What the process had still to say. Others that it left behind may have the terminal open."""
        if self._master in self._inputs:
            os.set_blocking(self._master, False)
            while self._master in self._inputs and self._copy(self._master):
                pass


def _note(number: int, frame: object) -> None:
    """Python tells the wake-up descriptor; there is nothing else to do."""


def _own_size() -> tuple[int, int] | None:
    try:
        size = os.get_terminal_size(0)
    except OSError:
        return None
    return size.lines, size.columns
