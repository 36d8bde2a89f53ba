"""TLS in front of the API: decrypts a connection into a socket pair, whose other end is served as a plain connection.

So a connection can be handed over whatever it came by, and either side may half-close, which asyncio's own TLS cannot do:
Docker's clients end stdin that way and go on reading.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

from wharfie.api.protocol import Peer, Protocol

log = logging.getLogger("wharfie.api")

HANDSHAKE_SECONDS = 10
CHUNK = 64 * 1024


def server_context(cert: str, key: str, ca: str) -> ssl.SSLContext:
    """A server's context; with `ca`, clients must show a certificate that it signed. Errors: OSError, ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert, key)
    if ca:
        context.load_verify_locations(ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class TlsListener:
    """Accepts connections on one listening socket."""

    def __init__(self, listener: socket.socket, context: ssl.SSLContext, protocol_for: Callable[[Peer], Protocol]) -> None:
        self._listener = listener
        self._context = context
        self._protocol_for = protocol_for
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Accept until cancelled; then the connections under way go on alone, and the socket is closed."""
        loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        with self._listener:
            while True:
                try:
                    client, _ = await loop.sock_accept(self._listener)
                except OSError as error:
                    # Out of descriptors, most likely: those who hold some will end.
                    log.error("cannot accept a TLS connection: %s", error)
                    await asyncio.sleep(0.1)
                    continue
                task = loop.create_task(self._serve(client))
                self._connections.add(task)
                task.add_done_callback(self._connections.discard)

    async def _serve(self, client: socket.socket) -> None:
        client.setblocking(False)
        with client, contextlib.suppress(OSError):  # the other side broke off: nobody to tell
            tunnel = _Tunnel(client, self._context)
            try:
                async with asyncio.timeout(HANDSHAKE_SECONDS):
                    await tunnel.handshake()
            except (ssl.SSLError, TimeoutError) as error:
                log.info("TLS handshake failed: %s", error)
                return
            ours, theirs = socket.socketpair()
            with ours:
                ours.setblocking(False)
                protocol = self._protocol_for(tunnel.peer())
                await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, theirs)
                await tunnel.pump(ours)


class _Tunnel:
    """One TLS connection: records on `client`, plain bytes on the socket that `pump` is given."""

    def __init__(self, client: socket.socket, context: ssl.SSLContext) -> None:
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._sending = asyncio.Lock()

    def peer(self) -> Peer:
        """The client's certificate, and the common name in it as the user."""
        certificate = self._tls.getpeercert(binary_form=True)
        if not certificate:
            return Peer()
        subject = (self._tls.getpeercert() or {}).get("subject", ())
        pairs: list[Any] = [pair for part in subject for pair in part]  # (key, value); the stub knows only of strings
        names = [value for key, value in pairs if key == "commonName"]
        return Peer(user=str(names[0]) if names else "", authentication="TLS", certificates=(certificate,))

    async def handshake(self) -> None:
        """Errors: ssl.SSLError, OSError."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._receive()
            except ssl.SSLError:
                await self._flush()  # the alert that says why
                raise
            else:
                await self._flush()
                return

    async def pump(self, plain: socket.socket) -> None:
        """Carry bytes both ways until our side has said all; the client's end of speaking is passed on meanwhile."""
        decrypting = asyncio.ensure_future(self._decrypt(plain))
        try:
            await self._encrypt(plain)
        finally:
            decrypting.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await decrypting

    async def _decrypt(self, plain: socket.socket) -> None:
        try:
            while data := await self._plaintext():
                await self._loop.sock_sendall(plain, data)
        except OSError:
            plain.shutdown(socket.SHUT_RDWR)  # broken, so there is nothing to wait for
            raise
        plain.shutdown(socket.SHUT_WR)

    async def _plaintext(self) -> bytes:
        """Some bytes from the client; none when it has said all."""
        while True:
            try:
                return self._tls.read(CHUNK)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._receive()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    async def _encrypt(self, plain: socket.socket) -> None:
        while data := await self._loop.sock_recv(plain, CHUNK):
            self._tls.write(data)
            await self._flush()
        with contextlib.suppress(ssl.SSLError):  # it wants the client's answer, which may not come
            self._tls.unwrap()
        await self._flush()
        self._client.shutdown(socket.SHUT_WR)

    async def _receive(self) -> None:
        data = await self._loop.sock_recv(self._client, CHUNK)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        async with self._sending:
            while data := self._outgoing.read():
                await self._loop.sock_sendall(self._client, data)
