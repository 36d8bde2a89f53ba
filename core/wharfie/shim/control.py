"""The shim's end of `shim.sock`: connections of daemons, their requests, and the events for them."""

from __future__ import annotations

import os
import socket
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

from wharfie.shim.folder import LOG, SOCKET
from wharfie.shim.loop import GONE, READ, WRITE, Loop
from wharfie.shim.protocol import VERSION, Broken, Message, Reader, encode, error_to_message
from wharfie.spi.errors import DriverError, Unsupported, WharfieError

EVENTS_KEPT = 256
"""Events that wait for a daemon to come; the oldest go first. The container's end is kept apart, in its state."""
_BUFFER_LIMIT = 4 * 1024 * 1024
"""Bytes for a daemon that does not read; beyond it the connection is cut, and a new one starts from the state."""
_ACCEPT_AGAIN = 0.2
_PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)

LATER = object()
"""Returned by a handler that will answer by `Request.reply` or `Request.fail`."""


class Request:
    """One request, to be answered once; the daemon may be gone by then."""

    def __init__(self, peer: Peer, message: Message, fds: list[int]) -> None:
        self._peer = peer
        self._number = message.get("request", 0)
        self.message = message
        self._fds = fds

    @property
    def abandoned(self) -> bool:
        """Whether the daemon that asked is gone."""
        return self._peer.closed

    def take_fd(self) -> int:
        """The next descriptor that came along; the caller owns it. Errors: DriverError."""
        if not self._fds:
            raise DriverError(f"request {self.message.get('do')!r}: a descriptor is missing")
        return self._fds.pop(0)

    def close_fds(self) -> None:
        """Close those that nobody took."""
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def reply(self, result: Any = None) -> None:
        self._peer.send({"reply": self._number, "result": result})

    def fail(self, error: Exception) -> None:
        self._peer.send({"reply": self._number, "error": error_to_message(error)})


class Peer:
    """A connected daemon."""

    def __init__(self, loop: Loop, connection: socket.socket, control: Control) -> None:
        self._loop = loop
        self._connection = connection
        self._control = control
        self._reader = Reader(connection)
        self._waiting = bytearray()
        connection.setblocking(False)
        loop.watch(connection.fileno(), READ, self._ready)

    @property
    def closed(self) -> bool:
        return self._connection.fileno() < 0

    def send(self, message: Message) -> None:
        if self.closed:
            return
        self._waiting += encode(message)
        self._write()

    def close(self) -> None:
        """May be repeated."""
        if self._connection.fileno() >= 0:
            self._loop.forget(self._connection.fileno())
            self._connection.close()
            self._reader.close()
            self._control.peer_gone(self)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._write()
        if events & (READ | GONE) and self._connection.fileno() >= 0:
            try:
                for message, fds in self._reader.read():
                    self._control.handle(Request(self, message, fds))
            except Broken:
                self.close()

    def _write(self) -> None:
        try:
            while self._waiting:
                sent = self._connection.send(self._waiting, socket.MSG_NOSIGNAL)
                del self._waiting[:sent]
        except BlockingIOError:
            if len(self._waiting) > _BUFFER_LIMIT:
                self.close()
                return
        except OSError:
            self.close()
            return
        self._loop.watch(self._connection.fileno(), READ | WRITE if self._waiting else READ, self._ready)


def is_gone(daemon: socket.socket) -> bool:
    """Whether a connection's other end was closed."""
    try:
        return not daemon.recv(1, _PEEK)
    except BlockingIOError:
        return False


def open_listener(folder: str) -> socket.socket:
    """The socket that daemons connect to."""
    # The folder is 0700 and its path may be longer than a socket's address (107 bytes): bind from within.
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.chdir(folder)
        listener.bind(SOCKET)
    finally:
        os.fchdir(here)
        os.close(here)
    listener.listen(16)
    listener.setblocking(False)
    return listener


class Control:
    """Serves all daemons that connect (one, but for the moment of a restart)."""

    def __init__(
        self,
        loop: Loop,
        folder: str,
        listener: socket.socket,
        handlers: object,
        hello: Callable[[], Message],
        on_alone: Callable[[], None],
    ) -> None:
        """`listener`: of `open_listener`. `handlers`: has a method `do_NAME(request)` for each request. `hello`: what a new
        daemon is told. `on_alone`: the last daemon has gone."""
        self._loop = loop
        self._folder = folder
        self._handlers = handlers
        self._hello = hello
        self._on_alone = on_alone
        self._peers: list[Peer] = []
        self._kept: deque[Message] = deque(maxlen=EVENTS_KEPT)
        self._listener = listener
        self._watch_listener()

    def adopt(self, connection: socket.socket) -> Peer:
        """A daemon that is connected already. The first one hears of the kept events."""
        peer = Peer(self._loop, connection, self)
        self._peers.append(peer)
        peer.send({"hello": VERSION, **self._hello()})
        while self._kept:
            peer.send(self._kept.popleft())
        return peer

    @property
    def alone(self) -> bool:
        """No daemon is connected."""
        return not self._peers

    def emit(self, event: Message, *, keep: bool = True) -> None:
        """Tell the daemons, or keep it for the next one. Not `keep`: a new daemon learns it from the state."""
        if self._peers:
            for peer in tuple(self._peers):
                peer.send(event)
        elif keep:
            self._kept.append(event)

    def close(self) -> None:
        """No daemon is served any more."""
        if self._listener.fileno() >= 0:
            self._loop.forget(self._listener.fileno())
            self._listener.close()
        for peer in tuple(self._peers):
            peer.close()

    def handle(self, request: Request) -> None:
        name = str(request.message.get("do"))
        try:
            handler: Callable[[Request], Any] | None = getattr(self._handlers, "do_" + name, None)
            if handler is None:
                raise Unsupported(
                    f'the shim of this container (protocol {VERSION}) does not know "{name}"; restart the container'
                )
            result = handler(request)
        except Exception as error:  # noqa: BLE001  # whatever an engine raises is the answer, never the shim's end
            if not isinstance(error, (WharfieError, OSError)):
                self.note(traceback.format_exc())
            request.fail(error)
        else:
            if result is not LATER:
                request.reply(result)
        finally:
            request.close_fds()

    def note(self, text: str) -> None:
        """Something that nobody is told otherwise, for those who look into the folder."""
        try:
            with open(f"{self._folder}/{LOG}", "a") as file:
                file.write(text)
        except OSError:
            pass

    def peer_gone(self, peer: Peer) -> None:
        if peer in self._peers:
            self._peers.remove(peer)
            if not self._peers:
                self._on_alone()

    def _watch_listener(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.watch(self._listener.fileno(), READ, lambda events: self._accept())

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it hung up meanwhile, or no descriptors are free: not again at once
            self._loop.forget(self._listener.fileno())
            self._loop.after(_ACCEPT_AGAIN, self._watch_listener)
            return
        self.adopt(connection)
