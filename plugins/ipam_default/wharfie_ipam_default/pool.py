"""One subnet and the addresses taken from it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_interface

from wharfie.spi.errors import Conflict, InvalidArgument, OutOfSpace
from wharfie.spi.ipam import Address, Interface, Subnet


class Pool:
    """Addresses are handed out lowest first, as Docker does, out of `ip_range` when there is one. Not thread-safe."""

    def __init__(self, subnet: Subnet, ip_range: Subnet | None = None) -> None:
        self.subnet = subnet
        part = ip_range or subnet
        usable_first, usable_last = _usable(subnet)
        self._first = max(usable_first, int(part.network_address))
        self._last = min(usable_last, int(part.broadcast_address))
        self._usable = (usable_first, usable_last)
        self._taken: set[int] = set()
        self._lowest = self._first  # nothing below is free, within the part that is handed out

    def take(self, wanted: Address | None) -> Interface:
        """Take `wanted`, or the lowest free address. Errors: Conflict, InvalidArgument, OutOfSpace."""
        number = self._next() if wanted is None else self._checked(wanted)
        self._taken.add(number)
        return self._interface(number)

    def take_gateway(self) -> Interface:
        """Take the subnet's first address, or the lowest free one when that is taken."""
        first = self._usable[0]
        if first in self._taken:
            return self.take(None)
        self._taken.add(first)
        return self._interface(first)

    def hold(self, address: Address) -> None:
        """Mark an address as taken, whoever has it."""
        self._taken.add(int(address))

    def give_back(self, address: Address) -> None:
        """Nothing happens when it is not taken."""
        number = int(address)
        self._taken.discard(number)
        if self._first <= number < self._lowest:
            self._lowest = number

    def _next(self) -> int:
        for number in range(self._lowest, self._last + 1):
            if number not in self._taken:
                self._lowest = number
                return number
        self._lowest = self._last + 1
        raise OutOfSpace(
            f"no available IPv{self.subnet.version} addresses on this network's address pools: {self.subnet} is used up;"
            " remove containers from the network or make one with a larger subnet or range"
        )

    def _checked(self, wanted: Address) -> int:
        if wanted not in self.subnet:
            raise InvalidArgument(f"requested address is out of range: {wanted} is not in the subnet {self.subnet}")
        number = int(wanted)
        if not self._usable[0] <= number <= self._usable[1]:
            raise InvalidArgument(f"requested address cannot be used: {wanted} stands for all of {self.subnet}")
        if number in self._taken:
            raise Conflict("Address already in use")
        return number

    def _interface(self, number: int) -> Interface:
        address = IPv4Address(number) if self.subnet.version == 4 else IPv6Address(number)
        return ip_interface((address, self.subnet.prefixlen))


def _usable(subnet: Subnet) -> tuple[int, int]:
    """First and last address that an interface may have: not the subnet's own (RFC 4291's router anycast in IPv6), nor
    IPv4's broadcast; both belong to interfaces in the smallest subnets (RFC 3021, RFC 6164)."""
    first, last = int(subnet.network_address), int(subnet.broadcast_address)
    if subnet.num_addresses <= 2:
        return first, last
    return first + 1, last - 1 if subnet.version == 4 else last
