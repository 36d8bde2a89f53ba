"""Subnets and addresses of networks: what users ask for, what the IPAM driver gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network
from pathlib import Path

from wharfie.engine.model.container import NetworkRecord, PoolRecord
from wharfie.engine.model.network import IPAM, IPAMPool
from wharfie.engine.undo import Undo
from wharfie.plugins.supervisor import Supervised
from wharfie.spi.errors import InvalidArgument
from wharfie.spi.ipam import (
    GATEWAY_REQUEST,
    Address,
    IpamDriver,
    PoolLease,
    PoolRequest,
    Subnet,
)
from wharfie.spi.network import Network, Pool


def check_pool(pool: IPAMPool) -> None:
    """Errors: InvalidArgument with Docker's texts."""
    problems = []
    try:
        subnet = ip_network(pool.subnet, strict=False)
    except ValueError:
        raise InvalidArgument(
            f"invalid network config:\ninvalid subnet {pool.subnet}: invalid CIDR block notation"
        ) from None
    if str(subnet) != pool.subnet:
        problems.append(f"invalid subnet {pool.subnet}: it should be {subnet}")
    for what, text in (
        ("gateway address", pool.gateway),
        *(("auxiliary address", value) for value in (pool.auxiliary_addresses or {}).values()),
    ):
        if not text:
            continue
        try:
            inside = ip_address(text) in subnet
        except ValueError:
            problems.append(f"invalid {what} {text}: invalid address")
            continue
        if not inside:
            problems.append(f"invalid {what} {text}: parent subnet {subnet} doesn't contain this address")
    if pool.ip_range:
        try:
            part = ip_network(pool.ip_range, strict=False)
        except ValueError:
            problems.append(f"invalid ip-range {pool.ip_range}: invalid CIDR block notation")
        else:
            if str(part) != pool.ip_range:
                problems.append(f"invalid ip-range {pool.ip_range}: it should be {part}")
            if part.version != subnet.version or not part.subnet_of(subnet):  # type: ignore[arg-type]  # same version
                problems.append(f"invalid ip-range {pool.ip_range}: parent subnet {subnet} doesn't contain ip-range")
    if problems:
        raise InvalidArgument("invalid network config:\n" + "\n".join(problems))


async def lease_pools(
    ipam: Supervised[IpamDriver],
    wanted: IPAM,
    *,
    ipv4: bool,
    ipv6: bool,
    needs_gateway: bool,
    avoid: Callable[[], Iterable[Subnet]],
    undo: Undo,
) -> list[PoolRecord]:
    """Take the pools of a network, with gateways and auxiliary addresses. `avoid`: subnets that are not to be chosen; it is
    called only if one is to be chosen."""
    asked = list(wanted.config or ())
    for pool in asked:
        check_pool(pool)
    versions = {ip_network(pool.subnet).version for pool in asked}
    if ipv4 and 4 not in versions:
        asked.insert(0, IPAMPool())
    families = [ip_network(pool.subnet).version if pool.subnet else 4 for pool in asked]
    if ipv6 and 6 not in versions:
        asked.append(IPAMPool())
        families.append(6)
    records = []
    for pool, family in zip(asked, families, strict=True):
        records.append(await _lease_pool(ipam, wanted, pool, family, needs_gateway, avoid, undo))
    return records


async def _lease_pool(
    ipam: Supervised[IpamDriver],
    wanted: IPAM,
    pool: IPAMPool,
    family: int,
    needs_gateway: bool,
    avoid: Callable[[], Iterable[Subnet]],
    undo: Undo,
) -> PoolRecord:
    request = PoolRequest(
        family=6 if family == 6 else 4,
        subnet=ip_network(pool.subnet) if pool.subnet else None,
        ip_range=ip_network(pool.ip_range) if pool.ip_range else None,
        options=dict(wanted.options or {}),
        avoid=() if pool.subnet else tuple(avoid()),
    )
    lease = await ipam.call(IpamDriver.request_pool, request)
    undo.add("address pool", lambda: ipam.call(IpamDriver.release_pool, lease.id))
    for address in (pool.auxiliary_addresses or {}).values():
        await ipam.call(IpamDriver.request_address, lease.id, ip_address(address), {})
    gateway = pool.gateway
    if gateway or needs_gateway:
        chosen = ip_address(gateway) if gateway else None
        gateway = str((await ipam.call(IpamDriver.request_address, lease.id, chosen, GATEWAY_REQUEST)).interface.ip)
    return PoolRecord(
        id=lease.id,
        subnet=str(lease.subnet),
        gateway=gateway,
        ip_range=pool.ip_range,
        auxiliary=dict(pool.auxiliary_addresses or {}),
        user_gateway=bool(pool.gateway),
        data=dict(lease.data),
    )


def lease_of(pool: PoolRecord, endpoints: Iterable[Address]) -> PoolLease:
    """The whole lease of a pool for `IpamDriver.reconcile`: gateway, auxiliary and endpoint addresses."""
    subnet = ip_network(pool.subnet)
    taken: list[Address] = [ip_address(text) for text in pool.auxiliary.values()]
    if pool.gateway:
        taken.append(ip_address(pool.gateway))
    taken += [address for address in endpoints if address in subnet]
    return PoolLease(
        id=pool.id,
        subnet=subnet,
        ip_range=ip_network(pool.ip_range) if pool.ip_range else None,
        addresses=tuple(dict.fromkeys(taken)),
        data=dict(pool.data),
    )


def as_network(record: NetworkRecord) -> Network:
    """The record as drivers see it."""
    return Network(
        id=record.id,
        name=record.name,
        pools=tuple(
            Pool(
                subnet=ip_network(pool.subnet),
                gateway=ip_address(pool.gateway) if pool.gateway else None,
                ip_range=ip_network(pool.ip_range) if pool.ip_range else None,
                auxiliary=dict(pool.auxiliary),
            )
            for pool in record.pools
        ),
        internal=record.internal,
        ipv4=record.enable_ipv4,
        ipv6=record.enable_ipv6,
        default=record.predefined,
        options=dict(record.planned or record.options),
        labels=dict(record.labels),
        needs_gateway=record.needs_gateway,
        host_address=ip_address(record.host_address) if record.host_address else None,
        direct=frozenset(record.direct),
    )


@lru_cache(maxsize=4096)
def subnet_of(text: str) -> Subnet:
    """Kept, because each new network is compared with all there are."""
    return ip_network(text)


def host_subnets() -> tuple[Subnet, ...]:
    """Subnets that the host's own routes lead to (but default routes): a new network must not hide them."""
    found: list[Subnet] = []
    for line in _lines("/proc/net/route")[1:]:
        words = line.split()
        if len(words) > 7 and words[1] != "00000000":
            found.append(_route4(words[1], words[7]))
    for line in _lines("/proc/net/ipv6_route"):
        words = line.split()
        length6 = int(words[1], 16)
        if 8 <= length6 < 128 and not words[0].startswith(("fe80", "ff")) and words[9] != "lo":
            found.append(_route6(words[0], length6))
    return tuple(found)


@lru_cache(maxsize=4096)
def _route4(destination: str, mask: str) -> Subnet:
    """From hexadecimal numbers in the host's order of bytes, which on all supported machines is the little-endian one."""
    address = IPv4Address(int.from_bytes(bytes.fromhex(destination), "little"))
    length = int.from_bytes(bytes.fromhex(mask), "little").bit_count()
    return IPv4Network((int(address), length), strict=False)


@lru_cache(maxsize=4096)
def _route6(destination: str, length: int) -> Subnet:
    return ip_network((IPv6Address(int(destination, 16)), length), strict=False)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
