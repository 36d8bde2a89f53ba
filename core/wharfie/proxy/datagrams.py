"""Relaying UDP: a socket of our own for each client, so that answers find their way back.

A client is forgotten when neither side has said anything for a while. An answer leaves from the address that the client
wrote to, which on a port of all addresses has to be asked for (IP_PKTINFO).
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections import OrderedDict

from wharfie.proxy.messages import Target
from wharfie.shim.loop import READ, Loop, Timer

IDLE = 90.0
"""Seconds; Docker's."""
CLIENTS = 2048
"""Of one port. The one that was silent for longest makes room: source addresses are easily forged."""
_LARGEST = 65535
_TURN = 32
"""Datagrams taken before others have their turn."""
_ANCILLARY = socket.CMSG_SPACE(64)
_IP_PKTINFO = 8
_IN_PKTINFO = struct.Struct("=I4s4s")  # interface, local address, destination (ip(7))
_IN6_PKTINFO = struct.Struct("=16sI")  # destination, interface (ipv6(7))

_Key = tuple[object, bytes]


class _Client:
    __slots__ = ("address", "ancillary", "server", "silence")

    def __init__(
        self, address: object, ancillary: list[tuple[int, int, bytes]], server: socket.socket, silence: Timer
    ) -> None:
        self.address = address
        self.ancillary = ancillary
        self.server = server
        self.silence = silence


class DatagramPort:
    """A bound socket whose datagrams are relayed to `target`. It owns the socket."""

    def __init__(self, loop: Loop, bound: socket.socket, target: Target) -> None:
        self.target = target
        self._loop = loop
        self.bound = bound
        self._clients: OrderedDict[_Key, _Client] = OrderedDict()
        bound.setblocking(False)
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            bound.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        loop.watch(bound.fileno(), READ, self._from_outside)

    def retarget(self, target: Target) -> None:
        """Relay to another place from now on; clients begin anew."""
        if target != self.target:
            self.target = target
            self._forget_all()

    def close(self) -> None:
        self._loop.forget(self.bound.fileno())
        self.bound.close()
        self._forget_all()

    def _from_outside(self, events: int) -> None:
        for _ in range(_TURN):
            try:
                data, ancillary, _, address = self.bound.recvmsg(_LARGEST, _ANCILLARY)
            except OSError:  # nothing more, or the news that an answer did not arrive
                return
            info = next((_answer_from(item) for item in ancillary if item[1] in (_IP_PKTINFO, socket.IPV6_PKTINFO)), None)
            client = self._client(address, info)
            if client is not None:
                with contextlib.suppress(OSError):
                    client.server.send(data)

    def _client(self, address: object, info: tuple[int, int, bytes] | None) -> _Client | None:
        key = (address, info[2] if info else b"")
        client = self._clients.get(key)
        if client is not None:
            client.silence.postpone(IDLE)
            self._clients.move_to_end(key)
            return client
        if len(self._clients) >= CLIENTS:
            self._forget(next(iter(self._clients)))
        family = socket.AF_INET6 if ":" in self.target[0] else socket.AF_INET
        try:
            server = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        except OSError:
            return None
        try:
            server.connect(self.target)
        except OSError:
            server.close()
            return None
        silence = self._loop.after(IDLE, lambda: self._forget(key))
        client = self._clients[key] = _Client(address, [info] if info else [], server, silence)
        self._loop.watch(server.fileno(), READ, lambda events: self._from_inside(key, client))
        return client

    def _from_inside(self, key: _Key, client: _Client) -> None:
        if self._clients.get(key) is not client:
            return
        for _ in range(_TURN):
            try:
                data = client.server.recv(_LARGEST)
            except BlockingIOError:
                return
            except OSError:  # the container refuses; it may listen later
                return
            client.silence.postpone(IDLE)
            with contextlib.suppress(OSError):
                self.bound.sendmsg([data], client.ancillary, 0, client.address)  # type: ignore[arg-type]  # as it came

    def _forget_all(self) -> None:
        for key in list(self._clients):
            self._forget(key)

    def _forget(self, key: _Key) -> None:
        client = self._clients.pop(key, None)
        if client is not None:
            client.silence.cancel()
            self._loop.forget(client.server.fileno())
            client.server.close()


def _answer_from(item: tuple[int, int, bytes]) -> tuple[int, int, bytes]:
    """What makes an answer leave from the address at which the question arrived."""
    level, kind, data = item
    if kind == _IP_PKTINFO:
        _, local, _ = _IN_PKTINFO.unpack(data[: _IN_PKTINFO.size])
        return level, kind, _IN_PKTINFO.pack(0, local, b"\0" * 4)
    address, interface = _IN6_PKTINFO.unpack(data[: _IN6_PKTINFO.size])
    link_local = address[0] == 0xFE and address[1] & 0xC0 == 0x80
    return level, kind, _IN6_PKTINFO.pack(address, interface if link_local else 0)
