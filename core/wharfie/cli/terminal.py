"""The user's terminal: raw while a container has it, its size, and signals as something that a loop can wait for."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import termios
import tty
from collections.abc import Iterable, Iterator

STDIN, STDOUT, STDERR = 0, 1, 2


@contextlib.contextmanager
def raw_terminal(enabled: bool) -> Iterator[None]:
    """Keys go to the container as they are typed. Restored at the end, whatever ends it."""
    if not enabled or not os.isatty(STDIN):
        yield
        return
    saved = termios.tcgetattr(STDIN)
    tty.setraw(STDIN)
    try:
        yield
    finally:
        termios.tcsetattr(STDIN, termios.TCSADRAIN, saved)


def window() -> tuple[int, int] | None:
    """Rows and columns; None without a terminal."""
    for fd in (STDOUT, STDIN):
        if os.isatty(fd):
            size = os.get_terminal_size(fd)
            return size.lines, size.columns
    return None


@contextlib.contextmanager
def signals(numbers: Iterable[signal.Signals]) -> Iterator[socket.socket]:
    """A socket that receives a byte, the number, for each of these signals, in place of what they do otherwise."""
    receiver, sender = socket.socketpair()
    receiver.setblocking(False)
    sender.setblocking(False)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    previous = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    try:
        yield receiver
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in before.items():
            signal.signal(number, handler)
        receiver.close()
        sender.close()
