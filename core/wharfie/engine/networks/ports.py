"""Host ports: one host, one port space. The core allocates and reserves them; drivers only program them.

A reserved port is a bound socket that never listens: the kernel itself refuses the port to everybody else, this daemon
included, and a connection to it reaches the container by the driver's rules before it would reach the socket.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, cast

from wharfie.engine.model.host import PortBinding
from wharfie.spi.errors import Conflict, InvalidArgument, WharfieError
from wharfie.spi.ipam import Address
from wharfie.spi.network import Port

Protocol = Literal["tcp", "udp", "sctp"]

_KINDS: Mapping[str, tuple[int, int]] = {
    "tcp": (socket.SOCK_STREAM, 0),
    "udp": (socket.SOCK_DGRAM, 0),
    "sctp": (socket.SOCK_STREAM, 132),  # IPPROTO_SCTP
}
_FREE = "port is already allocated"


@dataclass(slots=True)
class HostPorts:
    """The reservations of this daemon, by container."""

    default_address: str = "0.0.0.0"  # Docker's default for `-p`
    _held: dict[str, list[socket.socket]] = field(default_factory=dict)
    _next: dict[str, int] = field(default_factory=dict)

    def reserve(self, owner: str, bindings: Mapping[str, Sequence[PortBinding]]) -> tuple[Port, ...]:
        """Reserve host ports for `bindings` ("80/tcp" → where); nothing is kept when one of them fails.

        Errors: Conflict-like with Docker's text (`Bind for 0.0.0.0:80 failed: port is already allocated`),
        InvalidArgument.
        """
        ports: list[Port] = []
        try:
            for key, wanted in bindings.items():
                container_port, protocol = parse_port(key)
                for binding in wanted or [PortBinding()]:
                    ports.append(self._reserve_one(owner, container_port, protocol, binding))
        except BaseException:
            self.release(owner)
            raise
        return tuple(ports)

    def _reserve_one(self, owner: str, container_port: int, protocol: Protocol, binding: PortBinding) -> Port:
        address = _address(binding.host_ip or self.default_address)
        first, last = _range(binding.host_port)
        candidates: Iterable[int] = range(first, last + 1) if first else self._ephemeral(protocol)
        for port in candidates:
            held = _bind(protocol, address, port)
            if held is not None:
                self._held.setdefault(owner, []).append(held)
                if not first:
                    self._next[protocol] = port + 1
                return Port(protocol=protocol, container_port=container_port, host_address=address, host_port=port)
        shown = f"[{address}]" if address.version == 6 else str(address)
        if first:
            raise Conflict(f"Bind for {shown}:{first} failed: {_FREE}")
        raise WharfieError(f"all ports are allocated: no ephemeral {protocol} port is free on {shown}")

    def _ephemeral(self, protocol: str) -> Iterable[int]:
        """The kernel's local port range, starting after the last one given, once around."""
        low, high = (int(word) for word in Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
        start = self._next.get(protocol, low)
        if not low <= start <= high:
            start = low
        yield from range(start, high + 1)
        yield from range(low, start)

    def hold(self, owner: str, ports: Iterable[Port]) -> list[Port]:
        """Reserve again what a running container has published; those that somebody else took meanwhile."""
        lost = []
        for port in ports:
            held = _bind(port.protocol, port.host_address, port.host_port)
            if held is None:
                lost.append(port)
            else:
                self._held.setdefault(owner, []).append(held)
        return lost

    def release(self, owner: str) -> None:
        """Give all of the owner's ports back. May be repeated."""
        for held in self._held.pop(owner, ()):
            held.close()

    def close(self) -> None:
        for owner in list(self._held):
            self.release(owner)


def _bind(protocol: str, address: Address, port: int) -> socket.socket | None:
    """A socket that holds the port, None when it is taken. Errors: InvalidArgument (no such address here)."""
    kind, number = _KINDS[protocol]
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        held = socket.socket(family, kind | socket.SOCK_CLOEXEC, number)
    except OSError as error:
        raise InvalidArgument(f"this kernel has no {protocol} sockets: {error.strerror}") from error
    try:
        if address.version == 6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        held.bind((str(address), port))
    except OSError as error:
        held.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise WharfieError(f"cannot bind {address}:{port}: this host has no such address") from error
        return None
    return held


def parse_port(text: str) -> tuple[int, Protocol]:
    """ "80/tcp", "80". Errors: InvalidArgument."""
    number, _, protocol = text.partition("/")
    protocol = (protocol or "tcp").lower()
    if protocol not in _KINDS:
        raise InvalidArgument(f"invalid port specification: {text!r}: unknown protocol {protocol!r}")
    if not number.isdecimal() or not 0 < int(number) < 65536:
        raise InvalidArgument(f"invalid port specification: {text!r}")
    return int(number), cast(Protocol, protocol)


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
    first, _, last = text.partition("-")
    last = last or first
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) < 65536):
        raise InvalidArgument(f"invalid port specification: {text!r}: want a port or a range of ports below 65536")
    return int(first), int(last)


def _address(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise InvalidArgument(f"invalid IP address for a published port: {text!r}") from None
