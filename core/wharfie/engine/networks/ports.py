"""Host ports: one host, one port space. The core allocates and reserves them; drivers only program them.

A reserved port is a bound socket that never listens: the kernel itself refuses the port to everybody else, this daemon
included, and a connection to it reaches the container by the driver's rules before it would reach the socket.
"""

from __future__ import annotations

import errno
import fcntl
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Literal, cast

from wharfie.engine import digits
from wharfie.engine.model.host import PortBinding
from wharfie.proxy.launch import Place
from wharfie.spi.errors import Conflict, InvalidArgument, WharfieError
from wharfie.spi.ipam import Address
from wharfie.spi.network import Port

Protocol = Literal["tcp", "udp", "sctp"]

_KINDS: Mapping[str, tuple[int, int]] = {
    "tcp": (socket.SOCK_STREAM, 0),
    "udp": (socket.SOCK_DGRAM, 0),
    "sctp": (socket.SOCK_STREAM, 132),  # IPPROTO_SCTP
}
_ALL: Mapping[int, Address] = {4: IPv4Address("0.0.0.0"), 6: IPv6Address("::")}
_FREE = "port is already allocated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Where ports are published that name no address of the host."""

    address: Address
    """0.0.0.0: all addresses, those of IPv6 too."""
    versions: frozenset[int]
    """Versions of IP at whose addresses of the host the ports can be served."""
    direct: frozenset[int] = frozenset()
    """Versions in which the container is reached by its own address, so that no port of the host is taken."""


class HostPorts:
    """The reservations of this daemon, by container."""

    def __init__(self) -> None:
        self._held: dict[str, dict[Place, socket.socket]] = {}
        self._next: dict[str, int] = {}

    def reserve(self, owner: str, bindings: Mapping[str, Sequence[PortBinding]], scope: Scope) -> tuple[Port, ...]:
        """Reserve host ports for `bindings` ("80/tcp" → where); nothing is kept when one of them fails.

        Errors: Conflict-like with Docker's text (`Bind for 0.0.0.0:80 failed: port is already allocated`),
        InvalidArgument.
        """
        ports: list[Port] = []
        try:
            for key, wanted in bindings.items():
                container_port, protocol = parse_port(key)
                for binding in wanted or [PortBinding()]:
                    ports += self._reserve_one(owner, container_port, protocol, binding, scope)
        except BaseException:
            self.release(owner)
            raise
        return tuple(ports)

    def _reserve_one(
        self, owner: str, container_port: int, protocol: Protocol, binding: PortBinding, scope: Scope
    ) -> Iterable[Port]:
        addresses = _addresses(binding.host_ip, scope)
        port = partial(Port, protocol=protocol, container_port=container_port)
        for address in addresses:
            if address.version in scope.direct:
                yield port(host_address=_ALL[address.version], host_port=0)
        bound = [address for address in addresses if address.version not in scope.direct]
        if bound:
            number = self._take(owner, protocol, bound, binding.host_port)
            for address in bound:
                yield port(host_address=address, host_port=number)

    def _take(self, owner: str, protocol: Protocol, addresses: Sequence[Address], wanted: str) -> int:
        """One port that is free at all of these addresses."""
        first, last = _range(wanted)
        candidates: Iterable[int] = range(first, last + 1) if first else self._ephemeral(protocol)
        refused = addresses[0]
        for number in candidates:
            taken: dict[Place, socket.socket] = {}
            for address in addresses:
                place = Place(protocol, str(address), number)
                held = self._bind(place)
                if held is None:
                    refused = address
                    break
                taken[place] = held
            else:
                self._held.setdefault(owner, {}).update(taken)
                if not first:
                    self._next[protocol] = number + 1
                return number
            for held in taken.values():
                held.close()
        shown = f"[{refused}]" if refused.version == 6 else str(refused)
        if first and first == last:
            raise Conflict(f"Bind for {shown}:{first} failed: {_FREE}")
        wanted = f"port from {first} to {last}" if first else "ephemeral port"
        raise WharfieError(f"all ports are allocated: no {wanted} is free for {protocol} on {shown}")

    def _ephemeral(self, protocol: str) -> Iterable[int]:
        """The kernel's local port range, starting after the last one given, once around."""
        low, high = (int(word) for word in Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
        start = self._next.get(protocol, low)
        if not low <= start <= high:
            start = low
        yield from range(start, high + 1)
        yield from range(low, start)

    def _bind(self, place: Place) -> socket.socket | None:
        """A socket that holds the port; None when it is taken. Errors: InvalidArgument (no such address here)."""
        held = _bind(place)
        if held is None and place.protocol != "udp" and not self._holds(place):
            # It may be kept only by connections that wait for their last packets. Whoever listens is not passed by this.
            held = _bind(place, reuse=True)
        return held

    def _holds(self, place: Place) -> bool:
        """Whether one of our own reservations is in the way: they do not listen, the kernel would let them share."""
        unspecified = ("0.0.0.0", "::")
        return any(
            place.protocol == other.protocol
            and place.port == other.port
            and (":" in place.address) == (":" in other.address)
            and (place.address == other.address or place.address in unspecified or other.address in unspecified)
            for places in self._held.values()
            for other in places
        )

    def hold(self, owner: str, ports: Iterable[Port], inherited: Mapping[Place, socket.socket]) -> list[Port]:
        """Reserve again what a running container has published; those that somebody else took meanwhile. `inherited`:
        sockets that a helper of the last daemon kept."""
        lost = []
        for port in ports:
            place = place_of(port)
            if not port.host_port or place in self._held.get(owner, {}):
                continue
            known = inherited.get(place)
            held = _copy(known) if known is not None else self._bind(place)
            if held is None:
                lost.append(port)
            else:
                self._held.setdefault(owner, {})[place] = held
        return lost

    def held(self, owner: str) -> Mapping[Place, socket.socket]:
        """The sockets that hold the owner's ports."""
        return self._held.get(owner, {})

    def release(self, owner: str) -> None:
        """Give all of the owner's ports back. May be repeated."""
        for held in self._held.pop(owner, {}).values():
            held.close()

    def close(self) -> None:
        for owner in list(self._held):
            self.release(owner)


def _copy(known: socket.socket) -> socket.socket:
    """`socket.dup` would make it blocking, and the proxy's copy with it: they share that."""
    return socket.socket(fileno=fcntl.fcntl(known.fileno(), fcntl.F_DUPFD_CLOEXEC, 0))


def place_of(port: Port) -> Place:
    return Place(port.protocol, str(port.host_address), port.host_port)


def _addresses(wanted: str, scope: Scope) -> list[Address]:
    """The host's addresses for a port that the user wants at `wanted`, or anywhere."""
    if wanted:
        return [_address(wanted)]
    if scope.address != _ALL[4]:
        return [scope.address]
    return [_ALL[version] for version in (4, 6) if version in scope.versions] or [scope.address]


def _bind(place: Place, *, reuse: bool = False) -> socket.socket | None:
    kind, number = _KINDS[place.protocol]
    family = socket.AF_INET6 if ":" in place.address else socket.AF_INET
    try:
        held = socket.socket(family, kind | socket.SOCK_CLOEXEC, number)
    except OSError as error:
        raise InvalidArgument(f"this kernel has no {place.protocol} sockets: {error.strerror}") from error
    try:
        if family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if reuse:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((place.address, place.port))
        if reuse:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError as error:
        held.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise WharfieError(f"cannot bind {place.address}:{place.port}: this host has no such address") from error
        if error.errno == errno.EADDRINUSE:
            return None
        # EINVAL: a link-local address, which means nothing without an interface, or an IPv4 address written as one of IPv6.
        raise WharfieError(f"cannot bind {place.address}:{place.port}: {error.strerror}") from error
    return held


def parse_port(text: str) -> tuple[int, Protocol]:
    """ "80/tcp", "80". Errors: InvalidArgument."""
    number, _, protocol = text.partition("/")
    protocol = (protocol or "tcp").lower()
    if protocol not in _KINDS:
        raise InvalidArgument(f"invalid port specification: {text!r}: unknown protocol {protocol!r}")
    port = digits.number(number)
    if port is None or not 0 < port < 65536:
        raise InvalidArgument(f"invalid port specification: {text!r}")
    return port, cast(Protocol, protocol)


def exposed_ports(texts: Iterable[str]) -> list[str]:
    """A port each, by protocol and number, of what an image or a request exposes; that may be ranges ("80-90/tcp").

    Errors: InvalidArgument.
    """
    found: set[tuple[Protocol, int]] = set()
    for text in texts:
        numbers, _, protocol = text.partition("/")
        low, _, high = numbers.partition("-")
        first, kind = parse_port(f"{low}/{protocol}")
        last, _ = parse_port(f"{high or low}/{protocol}")
        if first > last:
            raise InvalidArgument(f"invalid port specification: {text!r}: the range ends before it begins")
        found.update((kind, number) for number in range(first, last + 1))
    return [f"{number}/{kind}" for kind, number in sorted(found)]


def check_bindings(bindings: Mapping[str, Sequence[PortBinding]]) -> None:
    """What can be said before a start. Errors: InvalidArgument."""
    for key, wanted in bindings.items():
        parse_port(key)
        for binding in wanted:
            _range(binding.host_port)
            if binding.host_ip:
                _address(binding.host_ip)


def _range(text: str) -> tuple[int, int]:
    """(0, 0) for any port."""
    if text in ("", "0"):
        return 0, 0
    low, _, high = text.partition("-")
    first, last = digits.number(low), digits.number(high or low)
    if first is None or last is None or not 0 < first <= last < 65536:
        raise InvalidArgument(f"invalid port specification: {text!r}: want a port or a range of ports below 65536")
    return first, last


def _address(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise InvalidArgument(f"invalid IP address for a published port: {text!r}") from None
