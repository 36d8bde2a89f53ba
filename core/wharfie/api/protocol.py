"""uvicorn's HTTP protocol, extended by what Docker's API needs: a connection that a handler may take over.

Docker's clients turn some requests into raw two-way streams, with `Upgrade: tcp` or without any sign of it; they may send
the first bytes of stdin in the same packet as the request, and half-close the connection to mark the end of stdin. So

- a request's head is parsed when it is whole, and refused when it grows too long or takes too long to come;
- what follows a request that may be taken over is kept aside instead of being read as the next request;
- the client's half-close leaves the connection open as long as a request is under way.

A handler finds its connection in `scope["extensions"][HIJACK]`.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from wharfie.spi.errors import Cancelled

HIJACK = "wharfie.hijack"

HEAD_LIMIT = 64 * 1024
"""Bytes of a request's head; a longer one is answered with 431."""
HEAD_SECONDS = 300.0
"""In which a request's head has to be whole, from the connection's beginning or from its own first byte on: Docker's time
(ReadHeaderTimeout). Who sends less is answered with 408, who sends nothing at all with nothing."""
EARLY_LIMIT = 64 * 1024
"""Bytes after a request that are kept before reading pauses."""

_TAKEABLE = re.compile(rb"POST (?:/v[\d.]+)?/(?:containers/[^/ ?]+/attach|exec/[^/ ?]+/start)[ ?]")
_MAY_BEGIN = re.compile(rb"[\r\nA-Za-z]")  # empty lines before a request are let pass (RFC 9112, 2.2)
_CONTENT_LENGTH = b"content-length"
_TRANSFER_ENCODING = b"transfer-encoding"

SO_PEERGROUPS = 59
"""Linux, asm-generic/socket.h; Python has no name for it."""
_GROUPS_AT_ONCE = 256  # Python's getsockopt takes no more than 1024 bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who is at the other end, as far as the connection says. `user` of a TLS client is its certificate's common name."""

    user: str = ""
    authentication: str = ""
    groups: tuple[str, ...] = ()
    certificates: tuple[bytes, ...] = ()


class Protocol(HttpToolsProtocol):
    """One connection. `peer` is set by the TLS front; other connections are asked on demand."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        peer: Peer | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.peer = peer
        self._extensions = {HIJACK: Connection(self)}
        self._head = b""
        self._head_timer: asyncio.TimerHandle | None = None
        self._between_messages = True
        self._takeable = False
        self._body_left = 0
        self._upgraded = False
        self._early: bytearray | None = None  # what came after a takeable request
        self._gone_callbacks: list[Callable[[], object]] = []

    # From the transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._early is not None:
            self._keep(data)
        elif self._body_left:
            self._take_body(data)
        elif self._between_messages:
            self._begin(data)
        else:
            self._feed(data)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio lets it answer whether to stay open
        if not self.busy:
            return False
        self.cycle.keep_alive = False
        if self._early is None:
            self._tell_gone()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._head_is_whole()
        self._tell_gone()

    def shutdown(self) -> None:
        """The server ends: streams without an end of their own end now."""
        super().shutdown()
        self._tell_gone()

    # From the parser

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._between_messages = False
        self.scope["extensions"] = self._extensions  # type: ignore[typeddict-item]  # ASGI allows more than uvicorn's type

    def on_message_complete(self) -> None:
        self._between_messages = True
        if self.parser.should_upgrade():
            self._body_left = self._declared_length()
            if self._body_left:
                return  # to the parser an upgrade has no body; it is read by `_take_body`
        super().on_message_complete()
        if self._takeable:
            self._early = bytearray()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._early is not None and not self._upgraded and not self.busy and not self.transport.is_closing():
            # Nobody took the connection: what follows is the next request after all.
            early, self._early, self._takeable = bytes(self._early), None, False
            if early:
                self.data_received(early)

    # Parts of it

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return self.cycle is not None and not self.cycle.response_complete

    def _begin(self, data: bytes) -> None:
        data = self._head + data
        if not _MAY_BEGIN.match(data):
            # Told at once: a client that tries TLS first waits for this to go on without.
            self.send_400_response("Invalid HTTP request received.")
            return
        end = data.find(b"\r\n\r\n")
        if max(end, len(data) if end < 0 else 0) > HEAD_LIMIT:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        if end < 0:
            self._head = data
            if self._head_timer is None:
                self._expect_head()
            return
        self._head = b""
        self._head_is_whole()
        self._takeable = _TAKEABLE.match(data) is not None
        if not self._takeable:
            self._feed(data)
            return
        self._feed(data[: end + 4])
        rest = data[end + 4 :]
        if self._early is not None:
            self._keep(rest)
        elif not self.transport.is_closing():
            self._body_left = self._declared_length()
            if self._body_left:
                self._take_body(rest)
            elif rest:
                self._feed(rest)

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _head_is_whole(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        if self.busy:
            self._expect_head()  # a request is still being answered, and ends the connection if need be
        elif self._head:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        else:
            self.transport.close()

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer what is no request, as Go's servers do, and close the connection."""
        self._head = b""
        text = f"{status.value} {status.phrase}".encode()
        head = b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
        self.transport.write(b"HTTP/1.1 %b\r\n%b\r\n%b" % (text, head, text))
        self.transport.close()

    def _declared_length(self) -> int:
        headers = dict(self.headers)
        if _TRANSFER_ENCODING in headers:
            return 0
        return int(headers.get(_CONTENT_LENGTH, b"0"))

    def _take_body(self, data: bytes) -> None:
        """Read the body of a takeable request up to its declared end; what follows is kept aside."""
        body, rest = data[: self._body_left], data[self._body_left :]
        self._body_left -= len(body)
        if not self._upgraded:
            self._feed(body)
        else:
            self.on_body(body)
            if not self._body_left:
                super().on_message_complete()
                self._early = bytearray()
        if self._early is not None:
            self._keep(rest)

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # The end of HTTP on this connection, whatever the answer will be.
            self._upgraded = True
            self.cycle.keep_alive = False
            rest = data[upgrade.args[0] :]
            if self._body_left:
                self._take_body(rest)
            else:
                self._early = bytearray(rest)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    def _keep(self, data: bytes) -> None:
        if self._early is not None and self.busy:
            self._early += data
            if len(self._early) > EARLY_LIMIT:
                self.flow.pause_reading()

    def _tell_gone(self) -> None:
        for callback in tuple(self._gone_callbacks):
            callback()

    @contextmanager
    def when_gone(self, callback: Callable[[], object]) -> Iterator[None]:
        """Have `callback` called when the client goes away or the server ends, while the context lasts."""
        self._gone_callbacks.append(callback)
        try:
            if self.cycle is not None and self.cycle.disconnected:
                callback()
            yield
        finally:
            self._gone_callbacks.remove(callback)

    def take_early(self) -> bytes:
        """What the client sent after its request."""
        return bytes(self._early or b"")

    def release(self) -> None:
        """End HTTP here without ending the connection, of which somebody holds a duplicate."""
        self.cycle.response_started = self.cycle.response_complete = True
        self.connections.discard(self)
        self._head_is_whole()
        self.transport.abort()


class Connection:
    """What a handler may do with the connection of its request."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def peer(self) -> Peer:
        """Who asks."""
        protocol = self._protocol
        if protocol.peer is None:
            protocol.peer = _peer_of(protocol.transport.get_extra_info("socket"))
        return protocol.peer

    @contextmanager
    def when_gone(self, callback: Callable[[], object]) -> Iterator[None]:
        """Have `callback` called when the client goes away or the server ends, while the context lasts."""
        with self._protocol.when_gone(callback):
            yield

    async def take(self, head: bytes) -> tuple[socket.socket, bytes]:
        """Answer with `head` and take the connection over.

        Returns a non-blocking socket, which is the caller's to close, and the bytes that the client has sent already. When
        the kernel takes the head at once, which is the rule, nothing else runs in the loop meanwhile. Errors: Cancelled.
        """
        protocol = self._protocol
        transport = protocol.transport
        if transport.is_closing():
            raise Cancelled("the client went away")
        protocol.flow.pause_reading()
        while transport.get_write_buffer_size():  # noqa: ASYNC110  # transports tell nobody when they have run empty
            await asyncio.sleep(0.001)
        if transport.is_closing():
            raise Cancelled("the client went away")
        taken = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        early = protocol.take_early()
        protocol.release()
        try:
            taken.setblocking(False)
            await _send(taken, head)
        except BaseException as error:
            taken.close()
            if isinstance(error, OSError):
                raise Cancelled("the client went away") from None
            raise
        return taken, early


async def _send(client: socket.socket, data: bytes) -> None:
    try:
        sent = client.send(data)
    except BlockingIOError:
        sent = 0
    if sent < len(data):
        await asyncio.get_running_loop().sock_sendall(client, data[sent:])


def _peer_of(connection: Any) -> Peer:
    """The user of a unix socket's other end and its groups when it connected; nobody in particular for TCP."""
    if connection.family != socket.AF_UNIX:
        return Peer()
    import pwd  # only authorization asks
    import struct

    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, group = struct.unpack("3i", credentials)
    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:
        name = str(user)
    numbers = dict.fromkeys((group, *_peer_groups(connection, name, group)))
    return Peer(user=name, authentication="socket", groups=tuple(_group_name(number) for number in numbers))


def _peer_groups(connection: Any, user: str, group: int) -> Sequence[int]:
    """Supplementary groups of the process that connected."""
    try:
        found = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * _GROUPS_AT_ONCE)
    except OSError:  # ERANGE: more than that; the account's groups are the next best answer
        return os.getgrouplist(user, group)
    return tuple(int.from_bytes(found[at : at + 4], sys.byteorder) for at in range(0, len(found), 4))


def _group_name(number: int) -> str:
    import grp

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
