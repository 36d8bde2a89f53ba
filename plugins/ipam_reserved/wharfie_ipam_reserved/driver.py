"""IPAM driver `reserved`."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_interface
from typing import ClassVar

from wharfie.spi.driver import Context, Fault, Strings
from wharfie.spi.errors import Conflict, Forbidden, InvalidArgument, NotFound, OutOfSpace
from wharfie.spi.ipam import (
    CONTAINER_NAME,
    GATEWAY_REQUEST,
    Address,
    AddressLease,
    IpamDriver,
    PoolLease,
    PoolRequest,
    Subnet,
)
from wharfie_ipam_reserved.file import Pool, find, read
from wharfie_ipam_reserved.settings import ReservedSettings

OVERLAP = "Pool overlaps with other one on this address space"
"""Docker's words for a subnet that another network holds."""

FILE = "file"
"""The option of a network, and the key of a lease's data, that says where the reservations are."""


@dataclass(slots=True)
class _Held:
    """A pool that a network holds, and the addresses taken from it."""

    file: str
    subnet: Subnet
    ip_range: Subnet | None
    taken: set[Address] = field(default_factory=set)


class ReservedDriver(IpamDriver):
    """Keeps what is taken in memory, `reconcile` brings it back; reads the reservations from the file each time."""

    name: ClassVar[str] = "reserved"
    spi: ClassVar[str] = "1.0"
    settings: ClassVar[str] = "wharfie_ipam_reserved.settings:ReservedSettings"

    def __init__(self, context: Context, settings: ReservedSettings) -> None:
        self._default_file = settings.file
        self._held: dict[str, _Held] = {}
        self._lock = threading.Lock()

    def request_pool(self, request: PoolRequest) -> PoolLease:
        if request.space not in self.spaces():
            raise InvalidArgument(f'cannot find address space "{request.space}"; there are {" and ".join(self.spaces())}')
        for option in request.options:
            if option != FILE:
                raise InvalidArgument(f'unknown option "{option}"; this driver knows "{FILE}"')
        file = request.options.get(FILE) or self._default_file
        if not file.startswith("/"):
            raise InvalidArgument(f"{FILE}: {file or 'nothing'} is no absolute path; say --ipam-opt {FILE}=/PATH")
        with self._lock:
            pool = self._chosen(read(file), file, request)
            _check_range(pool, request.ip_range)
            pool_id = f"{request.space}/{pool.subnet}" + (f"/{request.ip_range}" if request.ip_range else "")
            self._held[pool_id] = _Held(file, pool.subnet, request.ip_range)
        return PoolLease(id=pool_id, subnet=pool.subnet, ip_range=request.ip_range, data={FILE: file})

    def release_pool(self, pool_id: str) -> None:
        with self._lock:
            self._held.pop(pool_id, None)

    def request_address(self, pool_id: str, wanted: Address | None, options: Strings) -> AddressLease:
        with self._lock:
            held = self._held.get(pool_id)
            if held is None:
                raise NotFound(f'address pool "{pool_id}" is not held by any network')
            pool = find(read(held.file), held.subnet)
            if pool is None:
                raise Conflict(f"{held.file} has no pool {held.subnet} any more; put it back, or remove the network")
            if all(options.get(key) == value for key, value in GATEWAY_REQUEST.items()):
                address = _gateway(pool, wanted)
            else:
                address = _address(pool, held, wanted, options.get(CONTAINER_NAME, ""))
            if address in held.taken:
                raise Conflict("Address already in use")
            held.taken.add(address)
        return AddressLease(interface=ip_interface((address, held.subnet.prefixlen)))

    def release_address(self, pool_id: str, address: Address) -> None:
        with self._lock:
            held = self._held.get(pool_id)
            if held is not None:
                held.taken.discard(address)

    def reconcile(self, leases: Sequence[PoolLease]) -> Sequence[Fault]:
        """What is taken stays taken, whatever the file says today."""
        with self._lock:
            self._held = {
                lease.id: _Held(
                    lease.data.get(FILE) or self._default_file, lease.subnet, lease.ip_range, set(lease.addresses)
                )
                for lease in leases
            }
        return ()

    def _chosen(self, pools: Sequence[Pool], file: str, request: PoolRequest) -> Pool:
        fitting = [pool for pool in pools if pool.subnet.version == request.family]
        if request.subnet is not None:
            if any(_overlap(request.subnet, held.subnet) for held in self._held.values()):
                raise Forbidden(OVERLAP)
            fitting = [pool for pool in fitting if pool.subnet == request.subnet]
        if not fitting:
            what = f"subnet {request.subnet}" if request.subnet else f"IPv{request.family} subnet"
            has = ", ".join(str(pool.subnet) for pool in pools) or "none"
            raise InvalidArgument(f"{FILE}: {file} has no {what}; it has {has}")
        free = [pool for pool in fitting if not any(_overlap(pool.subnet, held.subnet) for held in self._held.values())]
        if not free:
            raise Forbidden(OVERLAP)
        if request.subnet is None:
            free = [pool for pool in free if not any(_overlap(pool.subnet, other) for other in request.avoid)]
            if not free:
                raise Forbidden(
                    f"this host has routes to the subnets of {file} already; if a network shall use one all the same, name "
                    "it with --subnet"
                )
        return free[0]


def _gateway(pool: Pool, wanted: Address | None) -> Address:
    if wanted is None:
        return pool.gateway or pool.first
    _check_inside(pool, wanted)
    if owner := pool.owner(wanted):
        raise Conflict(f"{wanted} is reserved for {owner} and cannot be the gateway")
    return wanted


def _address(pool: Pool, held: _Held, wanted: Address | None, name: str) -> Address:
    """The container's own reserved address, else one of the ranges."""
    own = pool.hosts.get(name)
    if wanted is None:
        return own if own is not None else _next(pool, held, name)
    _check_inside(pool, wanted)
    if wanted == own:
        return wanted
    if owner := pool.owner(wanted):
        raise Conflict(f"{wanted} is reserved for {owner}")
    if wanted in held.taken:
        raise Conflict("Address already in use")
    if not pool.is_open(wanted):
        raise InvalidArgument(f"{wanted} is not among the addresses that {held.file} gives; add it to ranges or to hosts")
    return wanted


def _next(pool: Pool, held: _Held, name: str) -> Address:
    for address in pool.open_addresses():
        if address not in held.taken and (held.ip_range is None or address in held.ip_range):
            return address
    who = f'container "{name}"' if name else "a container"
    raise OutOfSpace(
        f"no available IPv{held.subnet.version} addresses for {who}: {held.file} reserves none for this name in "
        f"{held.subnet}, and its ranges are used up; add one to hosts or to ranges"
    )


def _check_inside(pool: Pool, address: Address) -> None:
    if address not in pool.subnet:
        raise InvalidArgument(f"requested address is out of range: {address} is not in the subnet {pool.subnet}")


def _check_range(pool: Pool, ip_range: Subnet | None) -> None:
    if ip_range is None:
        return
    inside = ip_range.version == pool.subnet.version and ip_range.network_address in pool.subnet
    if not inside or ip_range.broadcast_address not in pool.subnet:
        raise InvalidArgument(f"invalid ip-range {ip_range}: it is not inside the subnet {pool.subnet}")


def _overlap(one: Subnet, other: Subnet) -> bool:
    return one.version == other.version and one.overlaps(other)
