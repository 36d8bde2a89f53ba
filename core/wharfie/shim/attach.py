"""One attached client: a connection that the daemon handed over, with the bytes still to be sent to it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from typing import Any, Protocol

from wharfie.shim import detach_keys
from wharfie.shim.loop import GONE, PEER_ENDED, READ, WRITE, Loop, Timer

HIGH_WATER = 256 * 1024
"""Bytes waiting for a client at which the streams that it follows are not read any more: the container's own write blocks,
as with Docker, until the client reads or leaves. Everything else goes on."""
LINGER = 10.0
"""Seconds that a client's connection stays after its last byte. Closed at once with unread input in it, a TCP connection
would be reset, and what is on its way to the client would be lost."""
STALLED = 600.0
"""Seconds after the container's end that a client may go without reading a byte before it is given up."""
_CHUNK = 64 * 1024
_STREAM = {"stdout": 1, "stderr": 2}
_HEAD = struct.Struct(">BxxxI")


class Owner(Protocol):
    """What a client needs of the session that it is attached to."""

    terminal: bool

    def client_input(self, client: Client, data: bytes) -> None: ...
    def client_input_ended(self, client: Client) -> None: ...
    def client_detached(self, client: Client) -> None: ...
    def client_drained(self) -> None: ...
    def client_gone(self, client: Client) -> None: ...


class Client:
    """Frames output and takes input; never waits. `streams`: those that it asked for."""

    def __init__(self, loop: Loop, connection: socket.socket, request: Mapping[str, Any], owner: Owner) -> None:
        """`request`: the fields of AttachRequest. Errors: InvalidArgument for detach keys that cannot be read."""
        self._loop = loop
        self._connection = connection
        self._owner = owner
        self.streams = frozenset(name for name in _STREAM if request[name])
        self.label = str(request["label"])
        self._framed = bool(request["framed"]) and not owner.terminal
        keys = detach_keys.parse(str(request["detach_keys"]))
        self._detector = detach_keys.Detector(keys) if owner.terminal else None
        self.reads = bool(request["stdin"])
        self._may_read = False
        self._waiting = bytearray()
        self._finishing = False
        self._timer: Timer | None = None
        connection.setblocking(False)
        self._watch()

    @property
    def is_full(self) -> bool:
        return len(self._waiting) >= HIGH_WATER

    @property
    def waiting(self) -> int:
        """Bytes that the client has not taken yet."""
        return len(self._waiting)

    def let_read(self, allowed: bool) -> None:
        """Whether the process has room for more input."""
        if self._may_read != allowed:
            self._may_read = allowed
            self._watch()

    def send(self, stream: str, data: bytes) -> None:
        head = _HEAD.pack(_STREAM[stream], len(data)) if self._framed else b""
        sent = 0
        if not self._waiting:
            try:
                sent = self._connection.sendmsg([head, data], (), socket.MSG_NOSIGNAL)
            except BlockingIOError:
                pass
            except OSError:
                self._leave()
                return
            if sent == len(head) + len(data):
                return
        self._waiting += head[sent:]
        self._waiting += memoryview(data)[max(0, sent - len(head)) :]
        self._watch()

    def finish(self) -> None:
        """No more output will come: send what waits, then say so, then let go."""
        if not self._finishing:
            self._finishing = True
            self.streams = frozenset()
            self._timer = self._loop.after(STALLED, self._leave)
            self._finish_when_sent()

    def close(self) -> None:
        """Let go at once. May be repeated."""
        if self._timer is not None:
            self._timer.cancel()
        if self._connection.fileno() >= 0:
            self._loop.forget(self._connection.fileno())
            self._connection.close()

    def accept_initial(self, data: bytes) -> None:
        """Input that came with the request, before any that is read from the connection."""
        if self.reads and data:
            self._take(data)

    def _watch(self) -> None:
        if self._connection.fileno() < 0:
            return
        events = 0
        if self._waiting:
            events |= WRITE
        if self._finishing or (self.reads and self._may_read):
            events |= READ | PEER_ENDED
        self._loop.watch(self._connection.fileno(), events, self._ready)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._write()
        if self._connection.fileno() >= 0 and events & (READ | PEER_ENDED):
            self._read()
        # The peer has closed both ways. What it sent before was read above, as far as it was wanted.
        if self._connection.fileno() >= 0 and events & GONE and not events & READ:
            self._leave()

    def _write(self) -> None:
        try:
            sent = self._connection.send(self._waiting, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        except OSError:
            self._leave()
            return
        was_full = self.is_full
        del self._waiting[:sent]
        if self._finishing and self._timer is not None:
            self._timer.postpone(STALLED)
            self._finish_when_sent()
        elif not self._waiting:
            self._watch()
        if was_full and not self.is_full:
            self._owner.client_drained()

    def _read(self) -> None:
        try:
            data = self._connection.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._leave()
            return
        if self._finishing:
            if not data:
                self._leave()
        elif data:
            self._take(data)
        else:
            self.reads = False
            self._watch()
            self._owner.client_input_ended(self)

    def _take(self, data: bytes) -> None:
        detached = False
        if self._detector is not None:
            data, detached = self._detector.feed(data)
        if data:
            self._owner.client_input(self, data)
        if detached:
            self.reads = False
            self._owner.client_detached(self)

    def _finish_when_sent(self) -> None:
        if not self._waiting:
            try:
                self._connection.shutdown(socket.SHUT_WR)
            except OSError:
                self._leave()
                return
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.after(LINGER, self._leave)
        self._watch()

    def _leave(self) -> None:
        self.close()
        self._owner.client_gone(self)
