"""The streams of one process, a container's or an exec's, between the process and its clients and log."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wharfie.shim.attach import HIGH_WATER, Client
from wharfie.shim.log_lines import LogLines
from wharfie.shim.loop import READ, WRITE, Loop, Timer
from wharfie.spi.errors import Conflict
from wharfie.spi.log import Stream

DRAIN_LIMIT = 2.0
"""Seconds that output may still come after the process's end, from descendants that hold its streams (Docker's limit)."""
DRAIN_QUIET = 0.1
"""Seconds of silence that end the wait sooner: what the process itself wrote is in the pipe when it ends."""
_STREAMS: tuple[Stream, Stream] = ("stdout", "stderr")
_CHUNK = 64 * 1024
_WIDE = 256 * 1024
_INPUT_LIMIT = 64 * 1024
_OVERRUN = 1024 * 1024
"""What a client's buffer may grow by, beyond its high water, when a process has ended and a full pipe is left."""


class _Output:
    """One stream that is read."""

    __slots__ = ("amount", "fd", "paused", "stream")

    def __init__(self, stream: Stream, fd: int) -> None:
        self.stream: Stream = stream
        self.fd = fd
        self.paused = False
        self.amount = _CHUNK

    def widen(self) -> None:
        """Its pipe was found full: from now on it holds more, so that writer and reader take turns less often. Only then:
        what pipes may hold is counted for all of a user's together (pipe(7), pipe-user-pages-soft)."""
        self.amount = _WIDE
        try:
            fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, _WIDE)
        except OSError:  # over the limit
            pass


class Session:
    """Made before the process, so that clients can come early; then `begin`, and at the end `drain`.

    `on_detach(label)` is called when a client leaves by its keys.
    """

    def __init__(
        self,
        loop: Loop,
        io: Mapping[str, Any],
        log: LogLines | None,
        on_detach: Callable[[str], None],
        on_idle: Callable[[], None],
    ) -> None:
        self.terminal = bool(io["terminal"])
        self._loop = loop
        self.keep_stdin = bool(io["stdin"])
        self._stdin_once = bool(io["stdin_once"])
        self.size: tuple[int, int] | None = tuple(io["size"]) if io["size"] else None
        self.log = log
        self._on_detach = on_detach
        self._on_idle = on_idle
        self._clients: list[Client] = []
        self._held = False
        self._outputs: list[_Output] = []
        self._input = -1
        self._input_waiting = bytearray()
        self._input_closed = not self.keep_stdin
        self._done: Callable[[], None] | None = None
        self._ended = False
        self._quiet: Timer | None = None
        self._last: Timer | None = None

    # The process's side

    def begin(self, input: int, outputs: Sequence[int]) -> None:
        """The process is made: relay. Its descriptors (`Ends`) are this session's from now on; `input` -1: it has none."""
        self._input = input
        for stream, fd in zip(_STREAMS, outputs, strict=False):
            output = _Output(stream, fd)
            self._outputs.append(output)
            self._watch(output)
        if input >= 0:
            self._flush_input()

    def abandon(self) -> None:
        """There will be no process: close everything, say goodbye to the clients."""
        self._close_input()
        for output in self._outputs:
            self._close_output(output)
        self._outputs.clear()
        self._ended = True
        self._finish_clients()

    def release(self) -> None:
        """There will be no process, and the daemon tells the clients why: let go of their connections."""
        for client in tuple(self._clients):
            client.close()
        self._clients.clear()
        self.abandon()

    def drain(self, done: Callable[[], None], *, hold: bool = False) -> None:
        """The process has ended. Call `done` when all its output was passed on, at the latest after DRAIN_LIMIT.

        `hold`: the clients' connections stay open until `finish`.
        """
        self._held = hold
        self._done = done
        self._ended = True
        self._close_input()
        self._last = self._loop.after(DRAIN_LIMIT, self._stop_draining)
        self._rest_quiet()
        self._regulate()
        self._check_drained()

    @property
    def idle(self) -> bool:
        """Nobody is attached any more."""
        return not self._clients

    @property
    def pipes(self) -> dict[int, int]:
        """Inode numbers of those to the process, by the number of the descriptor that it was given for each."""
        ends = {1 + _STREAMS.index(output.stream): output.fd for output in self._outputs}
        if self._input >= 0:
            ends[0] = self._input
        return {number: os.fstat(fd).st_ino for number, fd in ends.items()}

    # Requests

    def attach(self, connection: socket.socket, request: Mapping[str, Any], initial: bytes) -> None:
        client = Client(self._loop, connection, request, self)
        if not self.keep_stdin:
            client.reads = False
        self._clients.append(client)
        if self._ended and not self._outputs and not self._held:
            client.finish()
            return
        client.accept_initial(initial)
        self._regulate()

    def close_stdin(self) -> None:
        """End the process's input after what is on its way. A terminal has no such end."""
        if not self.terminal:
            self._input_closed = True
            self._flush_input()

    def resize(self, rows: int, columns: int) -> None:
        """Errors: Conflict (no terminal)."""
        if not self.terminal:
            raise Conflict("cannot resize: the process has no terminal")
        self.size = (rows, columns)
        if self._outputs:
            self._set_size(rows, columns)

    # What clients report

    def client_input(self, client: Client, data: bytes) -> None:
        if self._input_closed and not self.terminal:
            return
        self._input_waiting += data
        self._flush_input()

    def client_input_ended(self, client: Client) -> None:
        if self._stdin_once and not self.terminal:
            self.close_stdin()
        else:
            client.finish()  # as dockerd: for such a client the end of its input is the end of its session

    def client_detached(self, client: Client) -> None:
        self._on_detach(client.label)
        client.finish()

    def client_drained(self) -> None:
        self._regulate()

    def client_gone(self, client: Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
            if client.reads and self._stdin_once:
                self.close_stdin()
            self._regulate()
            if not self._clients:
                self._on_idle()

    def _finish_clients(self) -> None:
        for client in tuple(self._clients):
            client.finish()

    # Output

    def _watch(self, output: _Output) -> None:
        self._loop.watch(output.fd, READ, lambda events: self._read(output))

    def _read(self, output: _Output) -> None:
        try:
            data = os.read(output.fd, output.amount)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # the last process of a terminal has closed it
                raise
            data = b""
        now = time.time_ns()
        if data:
            if len(data) == _CHUNK == output.amount:
                output.widen()
            if self.log is not None:
                self.log.write(output.stream, data, now)
            for client in tuple(self._clients):
                if output.stream in client.streams:
                    client.send(output.stream, data)
            self._rest_quiet()
            self._regulate()
            return
        self._close_output(output)
        self._outputs.remove(output)
        if self.log is not None:
            self.log.end(output.stream, now)
        self._check_drained()

    def _regulate(self) -> None:
        """Read no stream faster than its slowest client; take no input that the process has no room for."""
        limit = HIGH_WATER + _OVERRUN if self._ended else HIGH_WATER
        for output in self._outputs:
            full = any(client.waiting >= limit and output.stream in client.streams for client in self._clients)
            if full != output.paused and output.fd >= 0:
                output.paused = full
                # A paused pipe is not watched at all: its writer's end would be reported for ever.
                if full:
                    self._loop.forget(output.fd)
                else:
                    self._watch(output)
        room = self._input >= 0 and len(self._input_waiting) < _INPUT_LIMIT
        for client in self._clients:
            client.let_read(room or (self._input_closed and self.keep_stdin))

    def _rest_quiet(self) -> None:
        if self._done is not None:
            if self._quiet is None:
                self._quiet = self._loop.after(DRAIN_QUIET, self._stop_draining)
            self._quiet.postpone(DRAIN_QUIET)

    def _stop_draining(self) -> None:
        for output in self._outputs:
            self._close_output(output)
            if self.log is not None:
                self.log.end(output.stream, time.time_ns())
        self._outputs.clear()
        self._check_drained()

    def _check_drained(self) -> None:
        if self._done is not None and not self._outputs:
            done, self._done = self._done, None
            for timer in (self._quiet, self._last):
                if timer is not None:
                    timer.cancel()
            if not self._held:
                self._finish_clients()
            done()

    def finish(self) -> None:
        """End the connections that `drain` held."""
        self._held = False
        self._finish_clients()

    def _close_output(self, output: _Output) -> None:
        self._loop.forget(output.fd)
        os.close(output.fd)
        output.fd = -1

    # Input

    def _flush_input(self) -> None:
        """Write what waits, as far as the process takes it; close after the last byte when that was asked for."""
        if self._input < 0:
            return
        while self._input_waiting:
            try:
                sent = os.write(self._input, self._input_waiting)
            except BlockingIOError:
                self._loop.watch(self._input, WRITE, lambda events: self._flush_input())
                self._regulate()
                return
            except OSError:  # the process closed its input; what clients still send is dropped
                self._input_waiting.clear()
                self._input_closed = True
                break
            del self._input_waiting[:sent]
        self._loop.forget(self._input)
        if self._input_closed:
            self._close_input()
        self._regulate()

    def _close_input(self) -> None:
        self._input_closed = True
        self._input_waiting.clear()
        if self._input >= 0:
            self._loop.forget(self._input)
            os.close(self._input)
            self._input = -1

    # Terminal

    def _set_size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._outputs[0].fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
