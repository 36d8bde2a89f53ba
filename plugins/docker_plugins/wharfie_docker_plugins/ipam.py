"""Addresses by a legacy IpamDriver."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from ipaddress import ip_interface, ip_network
from typing import Any, ClassVar

from wharfie.spi.driver import Context, Fault, Strings
from wharfie.spi.errors import Conflict, DriverError, Forbidden, InvalidArgument, NotFound, OutOfSpace, WharfieError
from wharfie.spi.ipam import (
    GATEWAY_REQUEST,
    Address,
    AddressLease,
    IpamCapability,
    IpamDriver,
    PoolLease,
    PoolRequest,
    Subnet,
)
from wharfie_docker_plugins.client import Document, MethodAbsent, Plugin, Refused
from wharfie_docker_plugins.ledger import Ledger

_SECONDS = 9
_GATEWAY = "com.docker.network.gateway"
"""Key of a pool's data under which a plugin names the gateway itself (libnetwork, netlabel.Gateway)."""
_TRIES = 8
"""Pools that are asked for until one overlaps nothing on this host."""

_REASONS: Sequence[tuple[str, type[WharfieError]]] = (
    ("overlap", Forbidden),
    ("already", Conflict),
    ("in use", Conflict),
    ("no available", OutOfSpace),
    ("exhausted", OutOfSpace),
    ("out of range", InvalidArgument),
    ("invalid", InvalidArgument),
)
"""The protocol has no codes: these words of libnetwork's own messages are what plugins repeat."""


class LegacyIpam(IpamDriver):
    """`pools.json` has the pools that the plugin was asked for: those that nobody wants after a crash are given back."""

    spi: ClassVar[str] = "1.0"
    plugin: ClassVar[Plugin]

    def __init__(self, context: Context, settings: Any) -> None:
        self._context = context
        self._spaces = ("local", "global")
        self._needs_mac = self._replay = False
        self._lock = threading.Lock()

    def open(self) -> None:
        self._pools = Ledger(self._context.state / "pools.json")
        spaces = self._call("GetDefaultAddressSpaces", {})
        self._spaces = (
            str(spaces.get("LocalDefaultAddressSpace") or "local"),
            str(spaces.get("GlobalDefaultAddressSpace") or "global"),
        )
        try:
            facts = self._call("GetCapabilities", {})
        except MethodAbsent:
            facts = {}
        self._needs_mac = facts.get("RequiresMACAddress") is True
        self._replay = facts.get("RequiresRequestReplay") is True

    def capabilities(self) -> frozenset[IpamCapability]:
        return frozenset({IpamCapability.NEEDS_MAC} if self._needs_mac else ())

    def probe(self) -> None:
        self.plugin.call("IpamDriver.GetDefaultAddressSpaces", {}, seconds=1)

    def spaces(self) -> tuple[str, str]:
        return self._spaces

    def request_pool(self, request: PoolRequest) -> PoolLease:
        """A subnet that the plugin chose and that overlaps something is held until it has chosen a better one."""
        if request.space not in ("local", "global", *self._spaces):
            raise InvalidArgument(f'cannot find address space "{request.space}"; there are {" and ".join(self._spaces)}')
        if request.subnet is not None:
            if request.subnet.version != request.family:
                raise InvalidArgument(f"subnet {request.subnet} is not an IPv{request.family} subnet")
            if _overlaps(request.subnet, [ip_network(row["subnet"]) for row in self._pools.values()]):
                raise Forbidden("Pool overlaps with other one on this address space")
        unfit: list[PoolLease] = []
        try:
            for _ in range(_TRIES if request.subnet is None else 1):
                lease = self._request_pool(request)
                if request.subnet is not None or not _overlaps(lease.subnet, request.avoid):
                    return lease
                unfit.append(lease)
        finally:
            for lease in unfit:
                self.release_pool(lease.id)
        tried = ", ".join(str(lease.subnet) for lease in unfit)
        raise Forbidden(f"the plugin offers only subnets that are in use on this host ({tried}); name one with --subnet")

    def _request_pool(self, request: PoolRequest) -> PoolLease:
        space = {"local": self._spaces[0], "global": self._spaces[1]}.get(request.space, request.space)
        answer = self._call(
            "RequestPool",
            {
                "AddressSpace": space,
                "Pool": str(request.subnet or ""),
                "SubPool": str(request.ip_range or ""),
                "Options": dict(request.options),
                "V6": request.family == 6,
            },
        )
        try:
            pool_id, subnet = str(answer["PoolID"]), ip_network(answer["Pool"], strict=False)
        except (KeyError, ValueError) as error:
            raise DriverError(f"IpamDriver.RequestPool: the plugin's answer names no pool: {error}") from None
        data = answer.get("Data")
        strings = {str(key): str(value) for key, value in data.items()} if isinstance(data, Mapping) else {}
        self._pools[pool_id] = {"subnet": str(subnet), "data": strings, "addresses": []}
        return PoolLease(id=pool_id, subnet=subnet, ip_range=request.ip_range, data=strings)

    def release_pool(self, pool_id: str) -> None:
        if pool_id in self._pools:
            self._call("ReleasePool", {"PoolID": pool_id})
            self._pools.pop(pool_id, None)

    def request_address(self, pool_id: str, wanted: Address | None, options: Strings) -> AddressLease:
        row = self._pools.get(pool_id)
        if row is None:
            raise NotFound(f'address pool "{pool_id}" is not held by any network')
        named = row["data"].get(_GATEWAY)
        if named and options.get("RequestAddressType") == GATEWAY_REQUEST["RequestAddressType"]:
            # It is the plugin's own choice and was never taken from the pool; another wish is against it.
            gateway = ip_interface(named)
            if wanted not in (None, gateway.ip):
                raise InvalidArgument(f"the plugin has the gateway {gateway.ip} for this pool, not {wanted}")
            return AddressLease(interface=gateway)
        document = {"PoolID": pool_id, "Address": str(wanted or ""), "Options": dict(options)}
        fresh = wanted is not None and str(wanted) not in row["addresses"]
        if fresh:  # written down first: what a killed daemon had asked for is given back
            self._pools.edit(pool_id, lambda row: _with_address(row, str(wanted)))
        try:
            answer = self._call("RequestAddress", document)
        except (Refused, Conflict, InvalidArgument, OutOfSpace):
            if fresh:
                self._pools.edit(pool_id, lambda row: _without_address(row, str(wanted)))
            raise
        try:
            interface = ip_interface(answer["Address"])
        except (KeyError, ValueError) as error:
            raise DriverError(f"IpamDriver.RequestAddress: the plugin's answer is no address: {error}") from None
        self._pools.edit(pool_id, lambda row: _with_address(row, str(interface.ip)))
        data = answer.get("Data")
        strings = {str(key): str(value) for key, value in data.items()} if isinstance(data, Mapping) else {}
        return AddressLease(interface=interface, data=strings)

    def release_address(self, pool_id: str, address: Address) -> None:
        row = self._pools.get(pool_id)
        if row is not None and str(address) in row["addresses"]:
            self._call("ReleaseAddress", {"PoolID": pool_id, "Address": str(address)})
            self._pools.edit(pool_id, lambda row: _without_address(row, str(address)))

    def reconcile(self, leases: Sequence[PoolLease]) -> Sequence[Fault]:
        wanted = {lease.id: {str(address) for address in lease.addresses} for lease in leases}
        faults: list[Fault] = []
        for pool_id in self._pools:
            with_faults = _Collector(faults, pool_id)
            for address in set(self._pools[pool_id]["addresses"]) - wanted.get(pool_id, set()):
                with_faults(self._call, "ReleaseAddress", {"PoolID": pool_id, "Address": address})
            if pool_id not in wanted:
                with_faults(self.release_pool, pool_id)
        for lease in leases:
            if self._replay:
                self._play(lease, _Collector(faults, lease.id))
            row = {"subnet": str(lease.subnet), "data": dict(lease.data), "addresses": sorted(wanted[lease.id])}
            self._pools[lease.id] = row
        return faults

    def _play(self, lease: PoolLease, collect: _Collector) -> None:
        """RequiresRequestReplay: a plugin without a memory is told again what it gave. One that still has it may say so."""
        space = lease.data.get("AddressSpace", self._spaces[0])
        pool = {"AddressSpace": space, "Pool": str(lease.subnet), "SubPool": str(lease.ip_range or "")}
        collect(self._call, "RequestPool", {**pool, "Options": {}, "V6": lease.subnet.version == 6})
        for address in lease.addresses:
            collect(self._call, "RequestAddress", {"PoolID": lease.id, "Address": str(address), "Options": {}})

    def _call(self, method: str, document: Document) -> Document:
        try:
            return self.plugin.call(f"IpamDriver.{method}", document, seconds=_SECONDS)
        except Refused as error:
            for words, kind in _REASONS:
                if words in error.reason.lower():
                    raise kind(error.message) from error
            raise


class _Collector:
    """Calls, and keeps what goes wrong; what is so already is not."""

    def __init__(self, faults: list[Fault], subject: str) -> None:
        self._faults = faults
        self._subject = subject

    def __call__(self, step: Any, *arguments: Any) -> None:
        try:
            step(*arguments)
        except (Conflict, Forbidden):
            return
        except WharfieError as error:
            self._faults.append(Fault(object=self._subject, reason=error.message))


def _overlaps(subnet: Subnet, others: Sequence[Subnet]) -> bool:
    return any(other.version == subnet.version and subnet.overlaps(other) for other in others)


def _with_address(row: Any, address: str) -> Any:
    return None if row is None else {**row, "addresses": sorted({*row["addresses"], address})}


def _without_address(row: Any, address: str) -> Any:
    return None if row is None else {**row, "addresses": sorted(set(row["addresses"]) - {address})}
