"""The name server of a container: 127.0.0.11 port 53 in its network namespace, UDP and TCP.

It listens on ports that the kernel chose and has port 53 led there (`dns_redirect`): the container may run a name server of
its own. Without nf_tables it takes port 53 itself.

Names of the container's networks are answered from files that the core keeps (`dns_names`), all others by the host's
servers. Known names are never asked of others, for whatever record: an unknown family is an empty answer.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from wharfie.shim import dns_wire
from wharfie.shim.dns_cache import Cache
from wharfie.shim.dns_forward import Forwarder
from wharfie.shim.dns_names import Names
from wharfie.shim.dns_redirect import redirect
from wharfie.shim.loop import GONE, READ, WRITE, Loop, Timer
from wharfie.shim.system import CLONE_NEWNET, setns

ADDRESS = "127.0.0.11"
PORT = 53
CONNECTIONS = 64
"""TCP clients at once; more wait to be accepted."""
IDLE = 10.0
"""Seconds that a TCP client may be silent."""
_DATAGRAMS_A_TURN = 16
_IP_FREEBIND = 15
_GUARD = "\0wharfie-names"
"""A name of a socket in the network namespace (unix(7), abstract)."""
_PROTOCOLS = (socket.IPPROTO_UDP, socket.IPPROTO_TCP)

Reply = Callable[[bytes], None]


def open_sockets(netns: str) -> list[int]:
    """Descriptors in the network namespace `netns`: for datagrams, of a listener, and of a guard.

    The guard hears nothing; by its name others see that the namespace is served. None in the caller's own namespace, where
    127.0.0.11 is not the container's, and in one that containers share and that is served already. Errors: OSError.
    """
    own = "/proc/self/ns/net"
    if os.stat(own).st_ino == os.stat(netns).st_ino:
        return []
    here = os.open(own, os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(there, CLONE_NEWNET)
        try:
            return _open_here()
        finally:
            setns(here, CLONE_NEWNET)
    finally:
        os.close(here)
        os.close(there)


def _open_here() -> list[int]:
    sockets = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)]
    try:
        sockets[0].bind(_GUARD)
        try:
            sockets[:0] = _bind(0)
            ports = [sock.getsockname()[1] for sock in sockets[:2]]
            redirect(ADDRESS, PORT, [*zip(_PROTOCOLS, ports, strict=True)])
        except OSError:  # a kernel without nf_tables
            for sock in sockets[:-1]:
                sock.close()
            sockets[:-1] = _bind(PORT)
    except OSError as error:
        for sock in sockets:
            sock.close()
        if error.errno == errno.EADDRINUSE:
            return []
        raise
    return [sock.detach() for sock in sockets]


def _bind(port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            sock = socket.socket(socket.AF_INET, kind)
            sockets.append(sock)
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)  # the loopback device may not be up yet
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((ADDRESS, port))
        sockets[1].listen(CONNECTIONS)
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


class Resolver:
    """Answers until `close`, by the shim's loop."""

    def __init__(self, loop: Loop, path: Path, sockets: Sequence[int]) -> None:
        """`path`: the folder of the names. `sockets`: as `open_sockets` gave them."""
        self._loop = loop
        self._names = Names(path)
        self._forwarder = Forwarder(loop)
        self._cache = Cache()
        self._datagrams, self._listener, self._guard = (socket.socket(fileno=fd) for fd in sockets)
        self._clients: set[_Client] = set()
        self._turn = 0  # of several addresses another one is first each time
        loop.watch(self._datagrams.fileno(), READ, lambda events: self._read_datagrams())
        loop.watch(self._listener.fileno(), READ, lambda events: self._accept())

    def close(self) -> None:
        """Let go of the network namespace. May be repeated."""
        self._forwarder.close()
        for client in tuple(self._clients):
            client.close()
        for sock in (self._datagrams, self._listener):
            if sock.fileno() >= 0:
                self._loop.forget(sock.fileno())
                sock.close()
        self._guard.close()

    def answer(self, data: bytes, reply: Reply, *, tcp: bool) -> None:
        """`reply` is called once, perhaps later, or never for what deserves no answer."""
        try:
            query = dns_wire.parse(data)
        except dns_wire.Malformed:
            refusal = dns_wire.refuse_malformed(data)
            if refusal is not None:
                reply(refusal)
            return
        size = 65535 if tcp else query.size
        if not query.is_standard:
            reply(dns_wire.answer(query, dns_wire.NOTIMP))
            return
        records = self._look_up(query)
        if records is not None:
            reply(dns_wire.answer(query, dns_wire.NOERROR, records, size=size))
            return

        servers = self._names.servers
        question = (tcp, tuple(servers), data[2:])
        kept = self._cache.get(question, data[:2])
        if kept is not None:
            reply(kept)
            return

        def answered(answer: bytes | None) -> None:
            if answer is None:
                answer = dns_wire.answer(query, dns_wire.SERVFAIL)
            else:
                self._cache.put(question, answer)
            reply(answer)

        if not servers:
            answered(None)
        elif not self._forwarder.ask(data, servers, answered, tcp=tcp):
            reply(dns_wire.answer(query, dns_wire.REFUSED))

    def _look_up(self, query: dns_wire.Query) -> list[bytes] | None:
        """Record data for a known name, perhaps none; None when others are to be asked."""
        if query.kind != dns_wire.IN:
            return None
        self._names.refresh()
        if query.type == dns_wire.PTR:
            name = self._names.reverse(query.name)
            return None if name is None else [dns_wire.write_name(name)]
        addresses = self._names.addresses(query.name)
        if addresses is None:
            return None
        length = {dns_wire.A: 4, dns_wire.AAAA: 16}.get(query.type)
        records = [address for address in addresses if len(address) == length]
        self._turn += 1
        start = self._turn % len(records) if records else 0
        return records[start:] + records[:start]

    def _read_datagrams(self) -> None:
        for _ in range(_DATAGRAMS_A_TURN):
            try:
                data, address = self._datagrams.recvfrom(65535)
            except OSError:
                return
            self.answer(data, self._datagram_reply(address), tcp=False)

    def _datagram_reply(self, address: tuple[str, int]) -> Reply:
        def reply(data: bytes) -> None:
            try:
                self._datagrams.sendto(data, address)
            except OSError:  # a full buffer or nobody there: as lost on the way
                pass

        return reply

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        self._clients.add(_Client(self._loop, connection, self))
        if len(self._clients) >= CONNECTIONS:
            self._loop.forget(self._listener.fileno())

    def client_gone(self, client: _Client) -> None:
        self._clients.discard(client)
        if self._listener.fileno() >= 0:
            self._loop.watch(self._listener.fileno(), READ, lambda events: self._accept())


class _Client:
    """A TCP connection: messages with a length of two bytes before them, answered in the order in which answers come."""

    def __init__(self, loop: Loop, connection: socket.socket, resolver: Resolver) -> None:
        self._loop = loop
        self._connection = connection
        self._resolver = resolver
        self._received = bytearray()
        self._sending = bytearray()
        self._idle: Timer = loop.after(IDLE, self.close)
        connection.setblocking(False)
        loop.watch(connection.fileno(), READ, self._ready)

    def close(self) -> None:
        if self._connection.fileno() >= 0:
            self._idle.cancel()
            self._loop.forget(self._connection.fileno())
            self._connection.close()
            self._resolver.client_gone(self)

    def _ready(self, events: int) -> None:
        try:
            if events & WRITE:
                self._write()
            if events & (READ | GONE):
                self._read()
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    def _read(self) -> None:
        data = self._connection.recv(4096)
        if not data:
            self.close()
            return
        self._idle.postpone(IDLE)
        self._received += data
        while len(self._received) >= 2:
            end = 2 + int.from_bytes(self._received[:2], "big")
            if len(self._received) < end:
                break
            message = bytes(self._received[2:end])
            del self._received[:end]
            self._resolver.answer(message, self._reply, tcp=True)

    def _reply(self, data: bytes) -> None:
        if self._connection.fileno() >= 0:
            self._sending += struct.pack(">H", len(data)) + data
            self._ready(WRITE)

    def _write(self) -> None:
        try:
            while self._sending:
                del self._sending[: self._connection.send(self._sending, socket.MSG_NOSIGNAL)]
        finally:
            events = READ | WRITE if self._sending else READ
            self._loop.watch(self._connection.fileno(), events, self._ready)
