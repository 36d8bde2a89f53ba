"""The proxy's life: one loop, the daemon's questions, and what is held for each owner."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket

from wharfie.proxy.datagrams import DatagramPort
from wharfie.proxy.messages import PORTS_PER_MESSAGE, VERSION, Place, receive, send
from wharfie.proxy.streams import StreamPort
from wharfie.shim.loop import READ, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(channel_fd: int, listener_fd: int) -> None:
    """`channel_fd`: the connection with the daemon that started this process. `listener_fd`: where its successors ask."""
    os.chdir("/")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as name:
        name.write("wharfie-proxy")
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    Proxy(socket.socket(fileno=listener_fd)).run(socket.socket(fileno=channel_fd))


class _Owner:
    """What is held for a container."""

    def __init__(self) -> None:
        self.life = -1  # a pidfd
        self.ports: dict[Place, StreamPort | DatagramPort] = {}


class Proxy:
    """Answers daemons, one at a time."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._trouble = ""
        self._loop = Loop(self._note_trouble)
        self._owners: dict[str, _Owner] = {}
        self._channel: socket.socket | None = None
        listener.setblocking(False)
        self._loop.watch(listener.fileno(), READ, self._accept)

    def run(self, channel: socket.socket) -> None:
        self._talk_to(channel)
        self._loop.run()

    def _note_trouble(self) -> None:
        import traceback  # seldom needed, and large

        self._trouble = traceback.format_exc()

    # ---- the daemon

    def _accept(self, events: int) -> None:
        with contextlib.suppress(OSError):
            channel, _ = self._listener.accept()
            self._talk_to(channel)

    def _talk_to(self, channel: socket.socket) -> None:
        """A daemon that comes later replaces the one before: that one is dead."""
        self._hang_up()
        self._channel = channel
        channel.setblocking(True)
        self._loop.watch(channel.fileno(), READ, self._question)

    def _hang_up(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            self._loop.forget(channel.fileno())
            channel.close()

    def _question(self, events: int) -> None:
        channel = self._channel
        if channel is None:
            return
        try:
            received = receive(channel)
            if received is None:
                self._hang_up()
            else:
                self._answer(channel, *received)
        except OSError:
            self._hang_up()
        self._end_if_idle()

    def _answer(self, channel: socket.socket, message: dict[str, Any], fds: list[int]) -> None:
        answer: dict[str, Any] = {}
        match message["do"]:
            case "put":
                self._put(message, fds)
                return
            case "drop":
                self._drop(message["owner"])
            case "list":
                self._list(channel)
                answer = {"end": True, "pid": os.getpid(), "version": VERSION}
            case "quit":
                for name in list(self._owners):
                    self._drop(name)
                self._loop.stop()
        if self._trouble:
            answer["trouble"], self._trouble = self._trouble, ""
        send(channel, answer)

    def _list(self, channel: socket.socket) -> None:
        for name, owner in self._owners.items():
            held = list(owner.ports.items())
            for start in range(0, len(held), PORTS_PER_MESSAGE):
                part = held[start : start + PORTS_PER_MESSAGE]
                send(
                    channel,
                    {"owner": name, "ports": [place for place, _ in part]},
                    [port.bound.fileno() for _, port in part],
                )

    # ---- what is held

    def _put(self, message: dict[str, Any], fds: list[int]) -> None:
        name = message["owner"]
        owner = self._owners.setdefault(name, _Owner())
        self._live_as_long_as(name, owner, fds[0])
        for (protocol, address, port, target_address, target_port), fd in zip(message["ports"], fds[1:], strict=True):
            place, target = (protocol, address, port), (target_address, target_port)
            given = socket.socket(fileno=fd)
            known = owner.ports.get(place)
            if known is not None:
                known.retarget(target)
                given.close()
            elif protocol == "udp":
                owner.ports[place] = DatagramPort(self._loop, given, target)
            else:
                owner.ports[place] = StreamPort(self._loop, given, target, half_close=protocol == "tcp")

    def _live_as_long_as(self, name: str, owner: _Owner, pidfd: int) -> None:
        if owner.life >= 0:
            self._loop.forget(owner.life)
            os.close(owner.life)
        owner.life = pidfd

        def ended(events: int) -> None:
            self._drop(name)
            self._end_if_idle()

        self._loop.watch(pidfd, READ, ended)

    def _drop(self, name: str) -> None:
        owner = self._owners.pop(name, None)
        if owner is None:
            return
        if owner.life >= 0:
            self._loop.forget(owner.life)
            os.close(owner.life)
        for port in owner.ports.values():
            port.close()

    def _end_if_idle(self) -> None:
        """Nothing to hold, and nobody who could bring something."""
        if self._channel is None and not self._owners:
            self._loop.stop()
