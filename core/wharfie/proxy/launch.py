"""The daemon's half: starting the proxy, finding the one that a predecessor left, asking it.

A question takes well under a millisecond; whoever asks waits for the answer, since a port that was given up must be free
when the call returns.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import wharfie
from wharfie.proxy.messages import PORTS_PER_MESSAGE, SOCKET, VERSION, receive, send
from wharfie.spi.errors import Unavailable

_PATIENCE = 5.0
"""Seconds to wait for an answer."""
_BOOT = """
import sys
sys.path.insert(0, sys.argv[1])
from wharfie.proxy.process import main
main(int(sys.argv[2]), int(sys.argv[3]))
"""

_BACKLOG = 4096


class Place(NamedTuple):
    """A port of the host."""

    protocol: str
    address: str
    port: int


class Target(NamedTuple):
    """Where a port's connections go."""

    address: str
    port: int


Routes = Mapping[Place, tuple[socket.socket, Target]]
"""What an owner has published: each place with the bound socket and where its connections go."""

log = logging.getLogger(__name__)


class Proxy:
    """A proxy process, started when something is to be relayed. Safe for all threads."""

    def __init__(self, run: Path) -> None:
        """`run`: the folder of its socket."""
        self._path = run / SOCKET
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self.pid = 0
        """0: none is known to run."""

    def inherit(self) -> dict[str, dict[Place, socket.socket]]:
        """What a proxy that outlived the last daemon holds, by owner, with copies of the sockets. Empty: there is none.

        One that speaks another version is told to end: the sockets keep its ports bound.
        """
        with self._lock:
            channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            channel.settimeout(_PATIENCE)
            try:
                with _reached(self._path) as address:
                    channel.connect(address)
                held, end = _listed(channel)
            except OSError as error:
                channel.close()
                if not isinstance(error, FileNotFoundError | ConnectionRefusedError):
                    log.warning("the proxy of the last daemon does not answer: %s", error)
                return {}
            self._channel, self.pid = channel, end["pid"]
        if end["version"] != VERSION:
            self.quit()
        return held

    def put(self, owner: str, routes: Routes, life: int) -> None:
        """Relay an owner's ports until `drop`, or until the process `life` (a pidfd) ends. May be repeated, with other
        targets too. Errors: Unavailable."""
        items = list(routes.items())
        for bound, _ in routes.values():
            if bound.type == socket.SOCK_STREAM:
                # Here already, so that nobody is refused while the proxy starts. The option only now: a port that is bound
                # and does not listen would be shared with whoever sets it too; and it must be set, or connections that wait
                # for their last packets keep the port from being bound again.
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                bound.listen(_BACKLOG)
        for start in range(0, len(items), PORTS_PER_MESSAGE):
            part = items[start : start + PORTS_PER_MESSAGE]
            ports = [(*place, *target) for place, (_, target) in part]
            message = {"do": "put", "owner": owner, "ports": ports}
            self._ask(message, [life, *(bound.fileno() for _, (bound, _) in part)], start=True, answered=False)

    def drop(self, owner: str) -> None:
        """Give an owner's ports up. It may have none. What cannot be asked any more holds nothing either."""
        if self.pid:
            with contextlib.suppress(Unavailable):
                self._ask({"do": "drop", "owner": owner})

    def quit(self) -> None:
        """End the process and what it relays. May be repeated."""
        if self.pid:
            with contextlib.suppress(Unavailable):
                self._ask({"do": "quit"})
        self.close()

    def close(self) -> None:
        """Hang up: a proxy that holds nothing ends. May be repeated."""
        with self._lock:
            self._hang_up()

    def _ask(self, message: dict[str, Any], fds: Sequence[int] = (), *, start: bool = False, answered: bool = True) -> None:
        with self._lock:
            for attempt in range(2):
                try:
                    channel = self._channel
                    if channel is None:
                        if not start:
                            return
                        channel = self._start()
                    send(channel, message, fds)
                    answer = _next(channel)[0] if answered else {}
                except OSError as error:
                    self._hang_up()
                    if attempt or not start:
                        raise Unavailable(f"the proxy of published ports cannot be asked: {error}") from error
                else:
                    if "trouble" in answer:
                        log.error("the proxy of published ports had trouble:\n%s", answer["trouble"])
                    return

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._path.unlink(missing_ok=True)
            with _reached(self._path) as address:
                listener.bind(address)
            self._path.chmod(0o600)
            listener.listen(4)
            package = Path(str(wharfie.__file__)).resolve().parent.parent
            words = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT, str(package)]
            self._child = subprocess.Popen(
                [*words, str(theirs.fileno()), str(listener.fileno()), str(self._path)],
                pass_fds=(theirs.fileno(), listener.fileno()),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={"PATH": os.environ.get("PATH", os.defpath)},
                cwd="/",
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
            listener.close()
        ours.settimeout(_PATIENCE)
        self._channel, self.pid = ours, self._child.pid
        return ours

    def _hang_up(self) -> None:
        channel, self._channel = self._channel, None
        child, self._child = self._child, None
        self.pid = 0
        if channel is not None:
            channel.close()
        if child is not None:
            threading.Thread(target=child.wait, name="proxy's end", daemon=True).start()


@contextlib.contextmanager
def _reached(path: Path) -> Iterator[str]:
    """A name of `path` that fits into a socket's address, however deep it lies (unix(7): 108 bytes). Errors: OSError."""
    folder = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _listed(channel: socket.socket) -> tuple[dict[str, dict[Place, socket.socket]], dict[str, Any]]:
    """What is held, and the list's end. Errors: OSError, with nothing left open."""
    held: dict[str, dict[Place, socket.socket]] = {}
    try:
        send(channel, {"do": "list"})
        while True:
            message, fds = _next(channel)
            if "end" in message:
                return held, message
            places = held.setdefault(message["owner"], {})
            for (protocol, address, port), fd in zip(message["ports"], fds, strict=True):
                places[Place(protocol, address, port)] = socket.socket(fileno=fd)
    except OSError:
        for places in held.values():
            for bound in places.values():
                bound.close()
        raise


def _next(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    received = receive(channel)
    if received is None:
        raise ConnectionError("it has ended")
    return received
