"""This driver's part of daemon.json."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

DEFAULT_POOLS: tuple[tuple[str, int], ...] = (
    ("172.17.0.0/16", 16),
    ("172.18.0.0/16", 16),
    ("172.19.0.0/16", 16),
    ("172.20.0.0/14", 16),
    ("172.24.0.0/14", 16),
    ("172.28.0.0/14", 16),
    ("192.168.0.0/16", 20),
)
"""Docker's own, in the order in which networks take them: 31 subnets."""


class AddressPool(BaseModel):
    """A block of addresses that is cut into subnets of prefix length `size`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: IPv4Network | IPv6Network
    size: int

    @model_validator(mode="after")
    def _size_fits(self) -> AddressPool:
        if not self.base.prefixlen <= self.size <= self.base.max_prefixlen:
            raise ValueError(
                f"size {self.size} is not between {self.base.prefixlen} and {self.base.max_prefixlen} for {self.base}"
            )
        return self


class IpamSettings(BaseModel):
    """`default-address-pools` as in Docker's daemon.json. IPv6 bases may be among them; without one, networks get /64
    subnets of a private /48 (RFC 4193) that belongs to this daemon."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    default_address_pools: Annotated[
        tuple[AddressPool, ...],
        Field(alias="default-address-pools", default_factory=lambda: tuple(_pool(*pool) for pool in DEFAULT_POOLS)),
    ]


def _pool(base: str, size: int) -> AddressPool:
    return AddressPool(base=IPv4Network(base), size=size)
