"""The descriptors between a process and its shim: pipes, or a terminal."""

from __future__ import annotations

import array
import os
import socket

from wharfie.shim.engine import Streams
from wharfie.spi.errors import DriverError


class Ends:
    """Both sides' ends for one process: `streams` are for the engine. `settle` or `close` must follow."""

    def __init__(self, *, terminal: bool, stdin: bool, size: tuple[int, int] | None) -> None:
        self.input = -1
        """What the process reads from, once it has its ends."""
        self.outputs: list[int] = []
        """Of its stdout and stderr, or the one of a terminal."""
        self._stdin = stdin
        self._console: socket.socket | None = None
        self._handed: list[int] = []  # the process's ends, until it has them
        if terminal:
            self._console, theirs = socket.socketpair()
            self._handed = [theirs.detach()]
            self.streams = Streams(console=self._handed[0], size=size)
            return
        if stdin:
            theirs_fd, self.input = os.pipe()
            os.set_blocking(self.input, False)
        else:
            theirs_fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._handed = [theirs_fd]
        for _ in range(2):
            ours, theirs_fd = os.pipe()
            os.set_blocking(ours, False)
            self._handed.append(theirs_fd)
            self.outputs.append(ours)
        self.streams = Streams(stdin=self._handed[0], stdout=self._handed[1], stderr=self._handed[2])

    def settle(self) -> None:
        """The process has its ends, ours are the caller's. Errors: DriverError when no terminal arrived."""
        self._close_handed()
        if self._console is not None:
            with self._console as console:
                master = _receive_terminal(console)
            self.outputs = [master]
            if self._stdin:
                self.input = os.dup(master)  # epoll knows a number once: reading and writing are watched apart

    def close(self) -> None:
        """There will be no process."""
        self._close_handed()
        if self._console is not None:
            self._console.close()
        for fd in (self.input, *self.outputs):
            if fd >= 0:
                os.close(fd)
        self.input, self.outputs = -1, []

    def _close_handed(self) -> None:
        for fd in self._handed:
            os.close(fd)
        self._handed = []


def _receive_terminal(console: socket.socket) -> int:
    console.settimeout(1)  # it was sent before the engine returned
    try:
        _, ancillary, _, _ = console.recvmsg(4096, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    except TimeoutError:
        ancillary = []
    received = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            received.frombytes(data[: len(data) - len(data) % received.itemsize])
    if not received:
        raise DriverError("the engine sent no terminal through the console socket")
    os.set_blocking(received[0], False)
    return received[0]
