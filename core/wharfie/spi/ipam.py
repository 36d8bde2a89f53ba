"""Addresses: subnets for networks, addresses for endpoints.

The model
    A *pool* is a subnet that a network holds, within an address space ("local" or "global" by the network's scope). An
    *address* is taken from a pool. The core keeps every lease in its own store and hands the whole truth back by
    `reconcile` after each start, so a driver may keep all of this in memory.

An example
    request_pool(PoolRequest(family=4))                    → PoolLease("local/172.18.0.0/16", 172.18.0.0/16)
    request_address("local/172.18.0.0/16", None, {})       → AddressLease(172.18.0.2/16)
    release_address(…);  release_pool("local/172.18.0.0/16")
"""

from __future__ import annotations

import enum
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import ClassVar, Literal

from wharfie.spi.driver import Driver, Fault, Strings, deadline

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Subnet = IPv4Network | IPv6Network

GATEWAY_REQUEST = {"RequestAddressType": "com.docker.network.gateway"}
"""Option of `request_address` that marks the request for a network's gateway (Docker's IPAM plugin protocol)."""

CONTAINER_NAME = "wharfie.container.name"
"""Option of `request_address` that says for which container it is, for drivers that keep a list of names."""


class IpamCapability(enum.StrEnum):
    """What an IPAM driver may ask for beyond the contract."""

    NEEDS_MAC = "needs-mac"  # request_address wants the option com.docker.network.endpoint.macaddress


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRequest:
    """`subnet` None: the driver chooses. `ip_range`: hand out addresses from this part only. `avoid`: subnets that
    other networks or the host's routes use and that a choice of the driver must not overlap."""

    space: str = "local"
    family: Literal[4, 6] = 4
    subnet: Subnet | None = None
    ip_range: Subnet | None = None
    options: Strings = field(default_factory=dict)
    avoid: tuple[Subnet, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLease:
    """A pool held by one network, with the addresses taken from it. `data`: the driver's own facts, handed back."""

    id: str
    subnet: Subnet
    ip_range: Subnet | None = None
    addresses: tuple[Address, ...] = ()
    data: Strings = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressLease:
    """An address with the prefix length of its subnet."""

    interface: Interface
    data: Strings = field(default_factory=dict)


class IpamDriver(Driver[IpamCapability]):
    """A keeper of address pools."""

    kind: ClassVar[str] = "ipam"

    def spaces(self) -> tuple[str, str]:
        """Names of the local and the global address space."""
        return ("local", "global")

    @abstractmethod
    @deadline(10)
    def request_pool(self, request: PoolRequest) -> PoolLease:
        """Take a subnet. Errors: InvalidArgument, Forbidden (overlaps a pool in use, Docker's 403), OutOfSpace."""

    @abstractmethod
    @deadline(10)
    def release_pool(self, pool_id: str) -> None:
        """Give a subnet back. Succeeds when it is not held."""

    @abstractmethod
    @deadline(10)
    def request_address(self, pool_id: str, wanted: Address | None, options: Strings) -> AddressLease:
        """Take an address, `wanted` or the next free one. The subnet's first address is the usual gateway.

        Errors: NotFound (no such pool), Conflict ("Address already in use"), InvalidArgument (outside the pool),
        OutOfSpace (none left).
        """

    @abstractmethod
    @deadline(10)
    def release_address(self, pool_id: str, address: Address) -> None:
        """Give an address back. Succeeds when it is not taken, and when the pool is gone."""

    @abstractmethod
    @deadline(30)
    def reconcile(self, leases: Sequence[PoolLease]) -> Sequence[Fault]:
        """The leases that hold, all of them: forget every other pool and address."""
