"""Relaying connections: TCP, and SCTP where the kernel has it.

Bytes go through one buffer that all connections share, for the loop does one thing at a time; only what the other side
did not take at once is kept, and until it has, nothing more is read. An end of one direction is passed on as such
(half-close), a reset as a reset.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable
from functools import partial

from wharfie.proxy.messages import Target
from wharfie.shim.loop import GONE, READ, WRITE, Loop

_PAUSE = 0.1
"""Seconds without accepting after the process ran out of descriptors."""
_ACCEPTS = 64
"""Connections accepted before others have their turn."""
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets the connection
_SHARED = memoryview(bytearray(128 * 1024))
_WAIT = (errno.EAGAIN, errno.EINTR)


class StreamPort:
    """A listening socket whose connections are relayed to `target`. It owns the socket."""

    def __init__(self, loop: Loop, listener: socket.socket, target: Target, *, half_close: bool) -> None:
        """`half_close`: whether the protocol knows the end of one direction. SCTP does not."""
        self.target = target
        self._loop = loop
        self._half_close = half_close
        self._protocol = listener.proto
        self._relays: set[Relay] = set()
        self.bound = listener
        listener.setblocking(False)
        self._watch()

    def retarget(self, target: Target) -> None:
        """Relay new connections to another place; those that are there go on."""
        self.target = target

    def close(self) -> None:
        """No more connections, and the end of those that are there."""
        self._loop.forget(self.bound.fileno())
        self.bound.close()
        for relay in list(self._relays):
            relay.abort()

    def _watch(self) -> None:
        if self.bound.fileno() >= 0:
            self._loop.watch(self.bound.fileno(), READ, self._accept)

    def _accept(self, events: int) -> None:
        for _ in range(_ACCEPTS):
            try:
                client, _ = self.bound.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._loop.forget(self.bound.fileno())
                    self._loop.after(_PAUSE, self._watch)
                return  # nobody is there, or has gone again
            self._relay(client)

    def _relay(self, client: socket.socket) -> None:
        family = socket.AF_INET6 if ":" in self.target[0] else socket.AF_INET
        try:
            server = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, self._protocol)
        except OSError:
            _reset(client)
            return
        relay = Relay(self._loop, client, server, half_close=self._half_close, on_end=self._relays.discard)
        self._relays.add(relay)
        relay.connect(self.target)


class _Side:
    """One connection of the two."""

    __slots__ = ("closed", "ended", "events", "hung", "pending", "ready", "socket")

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.ready: Callable[[int], None]
        self.pending = b""  # what it has not taken yet
        self.ended = False  # it sends no more
        self.closed = False  # it was told that no more comes
        self.hung = False  # closed both ways; the loop would report that for ever
        self.events = -1  # what the loop watches it for; -1: it does not


class Relay:
    """Two connections, each getting what the other sends."""

    def __init__(
        self,
        loop: Loop,
        client: socket.socket,
        server: socket.socket,
        *,
        half_close: bool,
        on_end: Callable[[Relay], None],
    ) -> None:
        self._loop = loop
        self._client, self._server = _Side(client), _Side(server)
        self._half_close = half_close
        self._on_end = on_end
        for side, other in self._both():
            side.ready = partial(self._ready, side, other)
            side.socket.setblocking(False)
            side.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if half_close:
                side.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connect(self, target: tuple[str, int]) -> None:
        number = self._server.socket.connect_ex(target)
        if number not in (0, errno.EINPROGRESS):
            self.abort()
            return
        self._loop.watch(self._server.socket.fileno(), WRITE, self._connected)

    def abort(self) -> None:
        """End both at once, by a reset. May be repeated."""
        for side in (self._client, self._server):
            if side.socket.fileno() >= 0:
                self._loop.forget(side.socket.fileno())
                _reset(side.socket)
        self._on_end(self)

    def _both(self) -> tuple[tuple[_Side, _Side], tuple[_Side, _Side]]:
        return (self._client, self._server), (self._server, self._client)

    def _connected(self, events: int) -> None:
        if self._server.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.abort()
        else:
            self._loop.forget(self._server.socket.fileno())
            self._update()

    def _ready(self, side: _Side, other: _Side, events: int) -> None:
        """`side` can be read or written, or is gone."""
        try:
            if events & WRITE and side.pending:
                side.pending = side.pending[side.socket.send(side.pending) :]
            if events & (READ | GONE):
                if not side.ended and not other.pending:
                    self._read(side, other)
                elif events & GONE:
                    self._gone(side)
        except OSError as error:
            if error.errno not in _WAIT:
                self.abort()
                return
        if side.socket.fileno() >= 0:
            self._update()

    def _read(self, side: _Side, other: _Side) -> None:
        count = side.socket.recv_into(_SHARED)
        if count == 0:
            side.ended = True
            return
        try:
            taken = other.socket.send(_SHARED[:count])
        except OSError as error:
            if error.errno not in _WAIT:
                raise
            taken = 0
        if taken < count:
            other.pending = bytes(_SHARED[taken:count])

    def _gone(self, side: _Side) -> None:
        """There is no more to come from it, or what is there cannot be taken now."""
        number = side.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))
        side.hung = True

    def _update(self) -> None:
        """Pass ends on, and watch for what can go on now."""
        done = 0
        for side, other in self._both():
            if side.ended and not other.pending:
                done += 1
                if self._half_close and not other.closed:
                    other.closed = True
                    with contextlib.suppress(OSError):  # it is gone already, and will be found so
                        other.socket.shutdown(socket.SHUT_WR)
        if done == 2 or (done and not self._half_close):
            self._finish()
            return
        for side, other in self._both():
            events = (0 if side.ended or other.pending else READ) | (WRITE if side.pending else 0)
            if side.hung and not events:
                events = -1
            if events == side.events:
                continue
            side.events = events
            if events == -1:
                self._loop.forget(side.socket.fileno())
            else:
                self._loop.watch(side.socket.fileno(), events, side.ready)

    def _finish(self) -> None:
        for side in (self._client, self._server):
            self._loop.forget(side.socket.fileno())
            side.socket.close()
        self._on_end(self)


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()
