"""Choosing a subnet that nobody has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

from wharfie.spi.ipam import Subnet
from wharfie_ipam_default.settings import AddressPool


def private_pool(instance: str) -> AddressPool:
    """The /48 of unique local addresses (RFC 4193) of this daemon: the same for as long as its data root lives."""
    global_id = hashlib.sha256(f"wharfie {instance}".encode()).digest()[:5]
    return AddressPool(base=IPv6Network((b"\xfd" + global_id + bytes(10), 48)), size=64)


def free_subnet(pools: Iterable[AddressPool], family: int, taken: Iterable[Subnet]) -> Subnet | None:
    """The first subnet of `family` in `pools`, in their order, that overlaps none of `taken`; None when all do."""
    spans = sorted(
        (int(subnet.network_address), int(subnet.broadcast_address)) for subnet in taken if subnet.version == family
    )
    for pool in pools:
        if pool.base.version == family and (first := _free_in(pool, spans)) is not None:
            address = first.to_bytes(pool.base.max_prefixlen // 8, "big")
            return IPv4Network((address, pool.size)) if family == 4 else IPv6Network((address, pool.size))
    return None


def _free_in(pool: AddressPool, spans: list[tuple[int, int]]) -> int | None:
    """The first address of a free subnet. One walk over what is taken, however many subnets the pool has."""
    length = 1 << (pool.base.max_prefixlen - pool.size)
    candidate = int(pool.base.network_address)
    for first, last in spans:
        if last < candidate:
            continue
        if first >= candidate + length:
            break
        candidate = -(-(last + 1) // length) * length
    return candidate if candidate <= int(pool.base.broadcast_address) else None
