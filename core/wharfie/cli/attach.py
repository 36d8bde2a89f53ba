"""Joining the user's streams with a hijacked connection: one loop over stdin, the connection, and signals."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable

from wharfie.cli import terminal
from wharfie.client import ApiError, ClientError, Hijacked
from wharfie.client.frames import STDERR, SYSTEM_ERROR, Demultiplexer

BLOCK = 32 * 1024
DETACH_KEYS = "ctrl-p,ctrl-q"

FORWARDED = tuple(
    number
    for number in signal.valid_signals()
    if isinstance(number, signal.Signals)
    and number < signal.SIGRTMIN
    and number
    not in (
        signal.SIGKILL,
        signal.SIGSTOP,
        signal.SIGCHLD,
        signal.SIGPIPE,
        signal.SIGURG,
        signal.SIGWINCH,
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
    )
)
"""What `docker run` without a terminal passes on to the container."""


class Attachment:
    """One joined stream. `tty`: bytes go through as they are; else output comes in frames for stdout and stderr."""

    def __init__(self, stream: Hijacked, *, tty: bool, stdin: bool, detach_keys: str = "") -> None:
        self._stream = stream
        self._tty = tty
        self._stdin = stdin
        self._frames = Demultiplexer()
        self._outgoing = b""
        self._end_of_input = False
        self._keys = parse_keys(detach_keys or DETACH_KEYS) if tty and stdin else b""
        self._typed = b""

    @property
    def detached(self) -> bool:
        """Whether the stream ended with the detach keys: the engine saw them and let go, the process goes on."""
        return bool(self._keys) and self._typed.endswith(self._keys)

    def run(self, on_signal: Callable[[int], None], on_resize: Callable[[int, int], None], *, forward: bool) -> None:
        """Until the connection ends. `on_signal` is called for signals if `forward`; `on_resize` for a new window size."""
        wanted = [signal.SIGWINCH] if self._tty else []
        if forward:
            wanted += FORWARDED
        with terminal.raw_terminal(self._tty and self._stdin), terminal.signals(wanted) as arrived:
            if self._tty:
                self._resize(on_resize)
            self._write_output(self._stream.initial)
            self._loop(arrived, on_signal, on_resize)

    def _loop(
        self, arrived: socket.socket, on_signal: Callable[[int], None], on_resize: Callable[[int, int], None]
    ) -> None:
        sock = self._stream.sock
        sock.setblocking(False)
        with selectors.PollSelector() as selector:  # unlike epoll it takes plain files as stdin
            selector.register(sock, selectors.EVENT_READ)
            selector.register(arrived, selectors.EVENT_READ)
            reading_stdin = False
            while True:
                # No more is read from stdin than the other side takes.
                if (self._stdin and not self._outgoing and not self._end_of_input) != reading_stdin:
                    reading_stdin = not reading_stdin
                    if reading_stdin:
                        selector.register(terminal.STDIN, selectors.EVENT_READ)
                    else:
                        selector.unregister(terminal.STDIN)
                selector.modify(sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if self._outgoing else 0))
                for key, events in selector.select():
                    if key.fileobj is arrived:
                        self._handle(arrived.recv(64), on_signal, on_resize)
                    elif key.fileobj is sock:
                        if events & selectors.EVENT_WRITE:
                            self._send()
                        if events & selectors.EVENT_READ and not self._receive():
                            return
                    else:
                        self._read_stdin()

    def _receive(self) -> bool:
        try:
            data = self._stream.sock.recv(BLOCK)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        self._write_output(data)
        return bool(data)

    def _write_output(self, data: bytes) -> None:
        if self._tty:
            _write(terminal.STDOUT, data)
            return
        for stream, payload in self._frames.feed(data):
            if stream == SYSTEM_ERROR:
                raise ApiError(0, payload.decode("utf-8", "replace").strip())
            _write(terminal.STDERR if stream == STDERR else terminal.STDOUT, payload)

    def _read_stdin(self) -> None:
        try:
            data = os.read(terminal.STDIN, BLOCK)
        except OSError:  # the terminal went away
            data = b""
        self._end_of_input = not data
        self._outgoing = data
        self._typed = (self._typed + data)[-len(self._keys) or None :]
        self._send()

    def _send(self) -> None:
        try:
            if self._outgoing:
                self._outgoing = self._outgoing[self._stream.sock.send(self._outgoing) :]
            if self._end_of_input and not self._outgoing:
                self._stream.sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError:  # nobody reads any more; output may still come
            self._outgoing = b""
            self._end_of_input = True

    def _handle(self, numbers: bytes, on_signal: Callable[[int], None], on_resize: Callable[[int, int], None]) -> None:
        for number in numbers:
            if number == signal.SIGWINCH:
                self._resize(on_resize)
                continue
            try:
                on_signal(number)
            except ClientError as error:
                print(f"wharfie: cannot pass signal {number} on: {error}", file=sys.stderr)

    def _resize(self, on_resize: Callable[[int, int], None]) -> None:
        size = terminal.window()
        if size is not None:
            try:
                on_resize(*size)
            except ClientError:  # not started yet, or over: a size is not worth a word
                pass


def parse_keys(text: str) -> bytes:
    """The bytes of "ctrl-p,ctrl-q"; empty when there is something else in it, which the engine will refuse."""
    keys = b""
    for key in text.split(","):
        if len(key) == 1:
            keys += key.encode()
        elif key.startswith("ctrl-") and len(key) == len("ctrl-") + 1:
            keys += bytes((ord(key[-1].upper()) & 0x1F,))
        else:
            return b""
    return keys


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
