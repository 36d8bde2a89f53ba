"""The daemon's side of the workers: the process that forks them, and a conversation with one of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from wharfie.shim.attendant import Attendant
from wharfie.shim.launch import folder_of
from wharfie.spi import errors
from wharfie.spi.errors import DeadlineExceeded, Unavailable, WharfieError

log = logging.getLogger(__name__)

PATIENCE = 60.0
"""Seconds in which something has to move, in the container or at the client; a container that does not run is held
meanwhile."""

_LENGTH = 4
_PIECE = 1 << 18
_BOOT = """
import sys
sys.path.insert(0, sys.argv[2])
from wharfie.engine.files.template import main
main(int(sys.argv[1]))
"""


class Session:
    """One worker. An async context manager: at the end the worker is gone, whatever it was doing."""

    def __init__(self, connection: socket.socket, pidfd: int) -> None:
        self._connection = connection
        self._pidfd = pidfd
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        # Its mounts go with it: a container that is started next must not find its root mounted twice.
        ended = asyncio.Event()
        self._loop.add_reader(self._pidfd, ended.set)
        try:
            async with asyncio.timeout(PATIENCE):
                await ended.wait()
        except TimeoutError:
            log.error("a worker in a container's files does not end: it may be stuck in the kernel")
        finally:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)

    async def answer(self) -> dict[str, Any]:
        """What it says. Errors: those of the worker; DeadlineExceeded, Unavailable (it died)."""
        head = await self._exactly(_LENGTH)
        document: dict[str, Any] = json.loads(await self._exactly(int.from_bytes(head)))
        if "error" in document:
            kind: type[WharfieError] = getattr(errors, document["error"], WharfieError)
            raise kind(document["message"])
        return document

    async def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = await self._within(self._loop.sock_recv(self._connection, count - len(data)))
            if not piece:
                raise Unavailable("the process that works on the container's files ended without an answer")
            data += piece
        return data

    async def pieces(self) -> AsyncIterator[bytes]:
        """The archive that follows the answer."""
        while piece := await self._within(self._loop.sock_recv(self._connection, _PIECE)):
            yield piece

    async def send(self, pieces: AsyncIterator[bytes]) -> None:
        """Hand an archive over, and say that it is whole. Ends early when the worker wants no more of it."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            async for piece in pieces:
                await self._within(self._loop.sock_sendall(self._connection, piece))
            self._connection.shutdown(socket.SHUT_WR)

    async def _within(self, work: Any) -> Any:
        try:
            async with asyncio.timeout(PATIENCE):
                return await work
        except TimeoutError:
            raise DeadlineExceeded(f"nothing moved in the container's files for {PATIENCE:.0f} s") from None


@dataclass(slots=True)
class Launcher:
    """Starts workers; the process behind it starts with the first one and again when it has died."""

    _attendant: Attendant | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    async def session(self, request: Mapping[str, Any], descriptors: Sequence[int] = ()) -> Session:
        """A worker that has begun with `request`. `descriptors` stay the caller's. Errors: Unavailable."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            message = json.dumps(request).encode()
            pidfd = await asyncio.to_thread(self._fork, message, [theirs.fileno(), *descriptors])
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return Session(ours, pidfd)

    def close(self) -> None:
        """End the process; workers end with it."""
        with self._lock:
            self._end()

    def _fork(self, message: bytes, descriptors: Sequence[int]) -> int:
        with self._lock:
            for _ in range(2):
                channel = (self._attendant or self._start()).channel
                try:
                    socket.send_fds(channel, [message], descriptors)
                    _, received, _, _ = socket.recv_fds(channel, 1, 1)
                except OSError:
                    received = []
                if received:
                    return received[0]
                self._end()
        raise Unavailable("the process that works on containers' files could not be started: see the daemon's log")

    def _start(self) -> Attendant:
        self._attendant = attendant = Attendant(_BOOT, [folder_of("wharfie")])
        attendant.channel.settimeout(PATIENCE)
        return attendant

    def _end(self) -> None:
        attendant, self._attendant = self._attendant, None
        if attendant is not None:
            attendant.end()
