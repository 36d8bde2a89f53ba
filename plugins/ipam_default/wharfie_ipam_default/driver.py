"""IPAM driver `default`."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from wharfie.spi.driver import Context, Fault, Strings
from wharfie.spi.errors import Forbidden, InvalidArgument, NotFound, OutOfSpace
from wharfie.spi.ipam import GATEWAY_REQUEST, Address, AddressLease, IpamDriver, PoolLease, PoolRequest, Subnet
from wharfie_ipam_default.pool import Pool
from wharfie_ipam_default.settings import IpamSettings
from wharfie_ipam_default.subnets import free_subnet, private_pool

OVERLAP = "Pool overlaps with other one on this address space"
"""Docker's words for a subnet that another network holds."""


@dataclass(frozen=True, slots=True)
class _Held:
    space: str
    pool: Pool


class PoolsDriver(IpamDriver):
    """Subnets from the daemon's address pools. Keeps all leases in memory; `reconcile` brings them back."""

    name: ClassVar[str] = "default"
    spi: ClassVar[str] = "1.0"
    settings: ClassVar[str] = "wharfie_ipam_default.settings:IpamSettings"

    def __init__(self, context: Context, settings: IpamSettings) -> None:
        self._sources = settings.default_address_pools
        if all(pool.base.version == 4 for pool in self._sources):
            self._sources += (private_pool(context.instance),)
        self._held: dict[str, _Held] = {}
        self._lock = threading.Lock()

    def request_pool(self, request: PoolRequest) -> PoolLease:
        if request.space not in self.spaces():
            raise InvalidArgument(f'cannot find address space "{request.space}"; there are {" and ".join(self.spaces())}')
        with self._lock:
            subnet = self._chosen(request) if request.subnet is None else self._wanted(request, request.subnet)
            pool_id = f"{request.space}/{subnet}" + (f"/{request.ip_range}" if request.ip_range else "")
            self._held[pool_id] = _Held(request.space, Pool(subnet, request.ip_range))
        return PoolLease(id=pool_id, subnet=subnet, ip_range=request.ip_range)

    def release_pool(self, pool_id: str) -> None:
        with self._lock:
            self._held.pop(pool_id, None)

    def request_address(self, pool_id: str, wanted: Address | None, options: Strings) -> AddressLease:
        gateway = all(options.get(key) == value for key, value in GATEWAY_REQUEST.items())
        with self._lock:
            held = self._held.get(pool_id)
            if held is None:
                raise NotFound(f'address pool "{pool_id}" is not held by any network')
            pool = held.pool
            return AddressLease(interface=pool.take_gateway() if gateway and wanted is None else pool.take(wanted))

    def release_address(self, pool_id: str, address: Address) -> None:
        with self._lock:
            held = self._held.get(pool_id)
            if held is not None:
                held.pool.give_back(address)

    def reconcile(self, leases: Sequence[PoolLease]) -> Sequence[Fault]:
        held: dict[str, _Held] = {}
        faults = []
        for lease in leases:
            pool = Pool(lease.subnet, lease.ip_range)
            for address in lease.addresses:
                pool.hold(address)
            space = lease.id.partition("/")[0]
            if other := _overlapping(held, space, lease.subnet):
                faults.append(Fault(object=lease.id, reason=f"{OVERLAP}: {lease.subnet} and {other}"))
            held[lease.id] = _Held(space, pool)
        with self._lock:
            self._held = held
        return faults

    def _wanted(self, request: PoolRequest, subnet: Subnet) -> Subnet:
        if subnet.version != request.family:
            raise InvalidArgument(f"subnet {subnet} is not an IPv{request.family} subnet")
        ip_range = request.ip_range
        if ip_range is not None and not (ip_range.version == subnet.version and _inside(ip_range, subnet)):
            raise InvalidArgument(f"invalid ip-range {ip_range}: it is not inside the subnet {subnet}")
        if _overlapping(self._held, request.space, subnet):
            raise Forbidden(OVERLAP)
        return subnet

    def _chosen(self, request: PoolRequest) -> Subnet:
        if request.ip_range is not None:
            raise InvalidArgument(f"ip-range {request.ip_range} needs a subnet that contains it")
        taken = [held.pool.subnet for held in self._held.values() if held.space == request.space]
        subnet = free_subnet(self._sources, request.family, [*taken, *request.avoid])
        if subnet is None:
            raise OutOfSpace(
                "all predefined address pools have been fully subnetted: remove networks, name a subnet, or add to"
                " default-address-pools"
            )
        return subnet


def _overlapping(held: dict[str, _Held], space: str, subnet: Subnet) -> Subnet | None:
    """The subnet held in `space` that shares addresses with `subnet`."""
    for other in held.values():
        if other.space == space and other.pool.subnet.version == subnet.version and subnet.overlaps(other.pool.subnet):
            return other.pool.subnet
    return None


def _inside(part: Subnet, whole: Subnet) -> bool:
    return part.network_address in whole and part.broadcast_address in whole
