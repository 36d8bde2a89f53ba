"""Clients that wait for the container's end, answered here when the daemon cannot."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from wharfie.shim.loop import PEER_ENDED, Loop


@dataclass(slots=True)
class _Waiter:
    """A client, and what to write around the exit code."""

    connection: socket.socket
    before: bytes
    after: bytes


class Waiters:
    """Connections and what to write around the exit code. Those that hang up are dropped."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiting: dict[int, _Waiter] = {}

    def add(self, connection: socket.socket, before: bytes, after: bytes) -> None:
        connection.setblocking(False)
        fd = connection.fileno()
        self._waiting[fd] = _Waiter(connection, before, after)
        self._loop.watch(fd, PEER_ENDED, lambda events: self._drop(fd))

    def answer(self, code: int) -> None:
        """Answer all; each only once. An answer is a few hundred bytes and fits into any socket's empty buffer."""
        for waiter in tuple(self._waiting.values()):
            try:
                waiter.connection.sendall(waiter.before + str(code).encode() + waiter.after, socket.MSG_NOSIGNAL)
                waiter.connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            self._drop(waiter.connection.fileno())

    def _drop(self, fd: int) -> None:
        waiter = self._waiting.pop(fd, None)
        if waiter is not None:
            self._loop.forget(fd)
            waiter.connection.close()
