"""Who waits for a container's end (Docker Engine API, `POST /containers/{id}/wait`).

A waiter is a future in this daemon, or a client's connection that is answered with a few bytes. For `next-exit` and
`not-running` such a connection is handed to the runtime while the container runs, so that it is answered even when the
daemon is dead by then; for `removed` it stays here, since only the daemon removes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass, field
from typing import Literal, cast

from wharfie.spi.errors import InvalidArgument
from wharfie.spi.runtime import ExitReply

Condition = Literal["not-running", "next-exit", "removed"]
CONDITIONS = ("not-running", "next-exit", "removed")


@dataclass(frozen=True, slots=True)
class WaitResult:
    """`error` is empty unless the wait itself failed."""

    status_code: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Client:
    """A connection to answer."""

    connection: socket.socket
    reply: ExitReply

    def answer(self, code: int) -> None:
        """Write the answer and end the connection; a client that is gone or full is only closed."""
        with contextlib.suppress(OSError):
            self.connection.setblocking(False)
            self.connection.send(self.reply.before + str(code).encode() + self.reply.after)
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()


def condition_of(text: str) -> Condition:
    """Errors: InvalidArgument."""
    if text in ("", *CONDITIONS):
        return cast(Condition, text or "not-running")
    raise InvalidArgument(f'invalid condition: "{text}"')


@dataclass(slots=True)
class Waiting:
    """The waiters of one container."""

    for_exit: list[asyncio.Future[WaitResult]] = field(default_factory=list)
    for_removal: list[asyncio.Future[WaitResult]] = field(default_factory=list)
    exit_clients: list[Client] = field(default_factory=list)
    removal_clients: list[Client] = field(default_factory=list)

    def future(self, condition: Condition) -> asyncio.Future[WaitResult]:
        future: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
        (self.for_removal if condition == "removed" else self.for_exit).append(future)
        return future

    def take_exit_clients(self) -> list[Client]:
        """Clients to hand to the runtime."""
        clients, self.exit_clients = self.exit_clients, []
        return clients

    def exited(self, code: int) -> None:
        """The container's process has ended and that is recorded."""
        _settle(self.for_exit, code)
        for client in self.take_exit_clients():
            client.answer(code)

    def removed(self, code: int) -> None:
        """The container is gone: everybody is answered."""
        self.exited(code)
        _settle(self.for_removal, code)
        clients, self.removal_clients = self.removal_clients, []
        for client in clients:
            client.answer(code)


def _settle(futures: list[asyncio.Future[WaitResult]], code: int) -> None:
    waiting, futures[:] = list(futures), []
    for future in waiting:
        if not future.done():
            future.set_result(WaitResult(code))
