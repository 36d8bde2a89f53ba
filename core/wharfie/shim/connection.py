"""The daemon's side of `shim.sock`: a connection for each shim, one thread that reads them all."""

from __future__ import annotations

import base64
import logging
import os
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from wharfie.shim.folder import SOCKET
from wharfie.shim.protocol import Broken, Message, Reader, error_from_message, send
from wharfie.spi.errors import DeadlineExceeded, Unavailable, WharfieError

SEND_LIMIT = 5
"""Seconds that a request may take to be sent to a shim that does not read (stopped by a signal, or out of memory)."""


class Connection:
    """A shim, as seen by the daemon. Safe for all threads."""

    def __init__(self, id: str, sock: socket.socket) -> None:
        self.id = id
        self.sock = sock
        self.reader = Reader(sock)
        self.hello: Future[Message] = Future()
        self.end_expected = False  # there is no container yet, or soon none any more: nobody is told of the end
        self.exit_seen = False
        self._lock = threading.Lock()
        self._pending: dict[int, Future[Any]] = {}
        self._number = 0
        self._ended = False
        self._hung_up = False  # by the shim, which the reader thread may hear of later than a sender
        sock.setblocking(True)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_LIMIT, 0))

    def begin(self, do: str, fds: Sequence[int] = (), **arguments: Any) -> Future[Any]:
        """Send a request; the future gets its result or error."""
        answer: Future[Any] = Future()
        with self._lock:
            if self._ended:
                answer.set_exception(self._gone())
                return answer
            self._number += 1
            number = self._number
            self._pending[number] = answer
            try:
                send(self.sock, {"version": 1, "request": number, "do": do, **arguments}, fds)
            except OSError as error:
                # A frame may have been sent in part; nothing can follow it.
                self._hung_up = isinstance(error, ConnectionError)
                self._pending.pop(number, None)
                answer.set_exception(Unavailable(f"shim of container {self.id}: {do}: {error}"))
                self._shut()
            except WharfieError as error:
                self._pending.pop(number, None)
                answer.set_exception(error)
        return answer

    def call(self, do: str, seconds: float, fds: Sequence[int] = (), **arguments: Any) -> Any:
        """Send a request and wait for its answer. Errors: the shim's, Unavailable, DeadlineExceeded."""
        return wait(self.begin(do, fds, **arguments), seconds, f"shim of container {self.id}: {do}")

    def handle(self, message: Message) -> None:
        """A frame that is no event (reader thread)."""
        if "hello" in message:
            if not self.hello.done():
                self.hello.set_result(message)
            return
        number = message.get("reply")
        with self._lock:
            answer = self._pending.pop(number, None) if isinstance(number, int) else None
        if answer is None:
            if "error" in message and not self.hello.done():  # the zygote refused, there is no shim
                self.hello.set_exception(error_from_message(message["error"]))
            return
        if "error" in message:
            answer.set_exception(error_from_message(message["error"]))
        else:
            answer.set_result(message.get("result"))

    @property
    def ended(self) -> bool:
        """Whether the shim is gone, or has let go of the daemon."""
        return self._ended or self._hung_up

    def hang_up(self) -> None:
        """Let go of the shim; the reader thread does the rest."""
        with self._lock:
            if not self._ended:
                self._shut()

    def end(self) -> None:
        """The shim is gone, or is to be let go (reader thread)."""
        with self._lock:
            self._ended = True
            pending, self._pending = list(self._pending.values()), {}
            self.sock.close()
        self.reader.close()
        if not self.hello.done():
            self.hello.set_exception(self._gone())
        for answer in pending:
            answer.set_exception(self._gone())

    def _shut(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:  # it hung up first
            pass

    def _gone(self) -> Unavailable:
        return Unavailable(f"the shim of container {self.id} is gone")


def wait(answer: Future[Any], seconds: float, what: str) -> Any:
    """Errors: the answer's, DeadlineExceeded."""
    try:
        return answer.result(seconds)
    except TimeoutError:
        raise DeadlineExceeded(f"{what}: no answer within {seconds:g} s; its outcome is unknown") from None


def connect(folder: Path) -> socket.socket | None:
    """A connection to the shim of `folder`, or None when it is dead. Errors: OSError."""
    # By descriptor, since a socket's address has at most 107 bytes and a run folder may be deep.
    here = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(2)
        sock.connect(f"/proc/self/fd/{here}/{SOCKET}")
    except (ConnectionRefusedError, FileNotFoundError):
        sock.close()
        return None
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(here)
    return sock


class Hub:
    """Reads all connections in one thread. `on_event(connection, message)` and `on_end(connection)` are called there."""

    def __init__(
        self, log: logging.Logger, on_event: Callable[[Connection, Message], None], on_end: Callable[[Connection], None]
    ) -> None:
        self._log = log
        self._on_event = on_event
        self._on_end = on_end
        self._selector: selectors.BaseSelector
        self._wake: socket.socket
        self._woken: socket.socket
        self._thread: threading.Thread | None = None
        self._stopping = False

    def start(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="shims", daemon=True)
        self._thread.start()

    def add(self, connection: Connection) -> None:
        self._selector.register(connection.sock, selectors.EVENT_READ, connection)  # epoll takes it while it waits
        self._nudge()

    def stop(self) -> None:
        """Let go of all shims; they go on. May be repeated."""
        if self._thread is None:
            return
        self._stopping = True
        self._nudge()
        self._thread.join()
        self._thread = None
        for key in tuple(self._selector.get_map().values()):
            self._selector.unregister(key.fileobj)
            if isinstance(key.data, Connection):
                key.data.end()
        self._selector.close()
        self._wake.close()
        self._woken.close()

    def _nudge(self) -> None:
        try:
            self._wake.send(b"\0")
        except BlockingIOError:
            pass

    def _run(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select():
                if isinstance(key.data, Connection):
                    self._read(key.data)
                else:
                    self._woken.recv(4096)

    def _read(self, connection: Connection) -> None:
        try:
            for message, fds in connection.reader.read():
                for fd in fds:
                    os.close(fd)
                if "event" in message:
                    self._on_event(connection, message)
                else:
                    connection.handle(message)
        except Broken:
            self._selector.unregister(connection.sock)
            connection.end()
            self._on_end(connection)
        except Exception:  # noqa: BLE001  # one shim's odd message is no reason to leave the others unread
            self._log.exception("message of the shim of container %s", connection.id)


def encode_bytes(data: bytes) -> str:
    return base64.b64encode(data).decode()
