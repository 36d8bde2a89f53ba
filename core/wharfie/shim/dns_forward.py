"""Questions that are not ours, asked of the host's name servers, from the host's network namespace."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Sequence

from wharfie.shim.loop import READ, WRITE, Loop

AT_ONCE = 256
"""Questions under way, of a whole container; each has a socket, so that each has a random source port."""
TIMEOUT = 2.0
"""Seconds for one server, then the next is asked."""
MAX_SERVERS = 3

Done = Callable[[bytes | None], None]


class Forwarder:
    """Asks servers in their order. `ask` calls back once, with the answer or None when no server gave one."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._exchanges: set[_Exchange] = set()

    def ask(self, data: bytes, servers: Sequence[str], done: Done, *, tcp: bool) -> bool:
        """False when too many questions are under way; `done` is not called then."""
        if len(self._exchanges) >= AT_ONCE:
            return False
        exchange = _Exchange(self._loop, data, list(servers[:MAX_SERVERS]), tcp)

        def finished(answer: bytes | None) -> None:
            self._exchanges.discard(exchange)
            done(answer)

        self._exchanges.add(exchange)
        exchange.begin(finished)
        return True

    def close(self) -> None:
        for exchange in self._exchanges:
            exchange.close()
        self._exchanges.clear()


class _Exchange:
    """One question, one server after another."""

    def __init__(self, loop: Loop, data: bytes, servers: list[str], tcp: bool) -> None:
        self._loop = loop
        self._asked_id, self._rest = data[:2], data[2:]
        self._servers = servers
        self._tcp = tcp
        self._id = b""
        self._sock: socket.socket | None = None
        self._received = bytearray()
        self._sending = b""
        self._done: Done = lambda answer: None
        self._timer = loop.after(TIMEOUT, self._next)

    def begin(self, done: Done) -> None:
        self._done = done
        self._next()

    def close(self) -> None:
        self._timer.cancel()
        self._close_socket()

    def _close_socket(self) -> None:
        if self._sock is not None:
            self._loop.forget(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def _next(self) -> None:
        self._close_socket()
        self._timer.cancel()
        while self._servers:
            try:
                self._ask(self._servers.pop(0))
            except OSError:  # unreachable, or not an address: the next one
                self._close_socket()
                continue
            self._timer = self._loop.after(TIMEOUT, self._next)
            return
        self._done(None)

    def _ask(self, server: str) -> None:
        kind = socket.SOCK_STREAM if self._tcp else socket.SOCK_DGRAM
        family, _, _, _, address = socket.getaddrinfo(server, 53, type=kind, flags=socket.AI_NUMERICHOST)[0]
        self._sock = socket.socket(family, kind)
        self._sock.setblocking(False)
        self._id = os.urandom(2)
        message = self._id + self._rest
        self._received.clear()
        if self._tcp:
            self._sending = struct.pack(">H", len(message)) + message
            try:
                self._sock.connect(address)
            except BlockingIOError:
                pass
            self._loop.watch(self._sock.fileno(), WRITE, self._ready)
        else:
            self._sock.connect(address)
            self._sock.send(message)
            self._loop.watch(self._sock.fileno(), READ, self._ready)

    def _ready(self, events: int) -> None:
        if self._sock is None:
            return
        try:
            if self._tcp and self._sending:
                self._sending = self._sending[self._sock.send(self._sending, socket.MSG_NOSIGNAL) :]
                if not self._sending:
                    self._loop.watch(self._sock.fileno(), READ, self._ready)
                return
            data = self._sock.recv(65537)
        except BlockingIOError:
            return
        except OSError:  # refused
            self._next()
            return
        if self._tcp:
            if not data:
                self._next()
                return
            self._received += data
            if len(self._received) < 2 or len(self._received) < 2 + int.from_bytes(self._received[:2], "big"):
                return
            data = bytes(self._received[2 : 2 + int.from_bytes(self._received[:2], "big")])
        # Whoever guesses the port must guess the id too.
        if len(data) >= 12 and data[:2] == self._id and data[2] & 0x80:
            self.close()
            self._done(self._asked_id + data[2:])
