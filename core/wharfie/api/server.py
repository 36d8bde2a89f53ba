"""uvicorn, set up for this API: our protocol, no signal handlers of its own, listeners with and without TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator, Sequence

import uvicorn
from starlette.types import ASGIApp

from wharfie.api.protocol import Peer, Protocol
from wharfie.api.tls import TlsListener

IDLE_SECONDS = 900
"""A connection without a request is closed after this long. Clients keep pools, and must rarely meet a closing one."""
GRACE_SECONDS = 3
"""What requests under way get to end in, at the daemon's end."""
BACKLOG = 2048


class Server(uvicorn.Server):
    """The HTTP server. Signals are the daemon's business; ask it to end by `should_exit`."""

    def __init__(self, app: ASGIApp, *, tls: Sequence[tuple[socket.socket, ssl.SSLContext]] = ()) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                interface="asgi3",
                http=Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=IDLE_SECONDS,
                timeout_graceful_shutdown=GRACE_SECONDS,
                backlog=BACKLOG,
            )
        )
        self._tls = tls

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer on `sockets` (plain) and on the TLS listeners until `should_exit` is set. Closes them."""
        listeners = [TlsListener(listener, context, self._protocol_for) for listener, context in self._tls]
        tasks = [asyncio.create_task(listener.serve()) for listener in listeners]
        try:
            await super().serve(sockets if sockets is not None else [])
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    def _protocol_for(self, peer: Peer) -> Protocol:
        return Protocol(self.config, self.server_state, {}, asyncio.get_running_loop(), peer)
