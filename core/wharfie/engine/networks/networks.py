"""Networks: making, finding and removing them (Docker Engine API, `/networks`)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_address, ip_interface, ip_network

from wharfie.engine.events import Events
from wharfie.engine.filters import Filters, boolean, check, labels_match, moment
from wharfie.engine.identity import NAME_PATTERN, by_prefix, new_id, parse_rfc3339, rfc3339
from wharfie.engine.model.container import Container, JoinedEndpoint, NetworkRecord, PoolRecord
from wharfie.engine.model.network import IPAM, EndpointSettings, IPAMPool, NetworkCreate
from wharfie.engine.networks import configurations, interfaces
from wharfie.engine.networks.addressing import as_network, host_subnets, lease_of, lease_pools, subnet_of
from wharfie.engine.settings import EngineSettings
from wharfie.engine.swarm import NOT_A_MANAGER
from wharfie.engine.undo import Undo
from wharfie.plugins.drivers import Drivers
from wharfie.plugins.supervisor import Supervised
from wharfie.spi.errors import Conflict, Forbidden, InvalidArgument, NotFound, Unavailable, WharfieError
from wharfie.spi.ipam import Address, IpamDriver, Subnet
from wharfie.spi.network import NetworkCapability, NetworkDriver
from wharfie.store.metadata import Metadata

log = logging.getLogger(__name__)

TABLE = "networks"
PREDEFINED = ("bridge", "host", "none")
_RESERVED = frozenset({*PREDEFINED, "default"})
_FILTERS = frozenset({"dangling", "driver", "id", "label", "label!", "name", "scope", "type"})
_PRUNE_FILTERS = frozenset({"label", "label!", "until"})


class Networks:
    """The records, and the drivers' side of making and removing."""

    def __init__(
        self,
        settings: EngineSettings,
        metadata: Metadata,
        drivers: Drivers,
        events: Events,
        containers: Callable[[], Iterable[Container]],
    ) -> None:
        self._settings = settings
        self._metadata = metadata
        self._drivers = drivers
        self._events = events
        self._containers = containers
        self._records: dict[str, NetworkRecord] = {}
        self._ids: dict[str, str] = {}  # by name
        self._made: set[str] = set()  # networks whose kernel objects this daemon knows to be there
        self._lock = asyncio.Lock()
        self.busy: dict[str, set[str]] = {}
        """Network id → containers that are in it or about to be: such a network is not removed."""
        self.promised: dict[str, set[Address]] = {}
        """Network id → addresses of endpoints that are not joined yet: no record has them."""

    # ---- finding

    def get(self, ref: str) -> NetworkRecord:
        """By full id, name, or unique prefix of an id. Errors: NotFound, InvalidArgument (ambiguous)."""
        if ref in self._records:
            return self._records[ref]
        if ref in self._ids:
            return self._records[self._ids[ref]]
        match = by_prefix(self._records, ref)
        if match is None:
            raise NotFound(f"network {ref} not found")
        return self._records[match]

    def of(self, name: str, settings: EndpointSettings) -> NetworkRecord:
        """The network of a container's endpoint: by the id that was recorded, by name when that network was made anew.

        Errors: NotFound.
        """
        return self._records.get(settings.network_id) or self.get(name)

    def all(self) -> Sequence[NetworkRecord]:
        return list(self._records.values())

    def matching(self, filters: Filters) -> list[NetworkRecord]:
        """What `docker network ls --filter` shows. Errors: InvalidArgument."""
        check(filters, _FILTERS)
        dangling = boolean(filters, "dangling", default=False) if "dangling" in filters else None
        kinds = filters.get("type", ())
        for kind in kinds:
            if kind not in ("builtin", "custom"):
                raise InvalidArgument(f"invalid filter: 'type'='{kind}'")
        return [
            record
            for record in self._records.values()
            if _matches(record, filters)
            and labels_match(filters, record.labels)
            and (not kinds or ("builtin" if record.predefined else "custom") in kinds)
            and (dangling is None or dangling == (not record.predefined and not self.endpoints(record.id)))
        ]

    def endpoints(self, network_id: str) -> list[tuple[Container, JoinedEndpoint]]:
        """Containers that are in the network now."""
        return [
            (container, joined)
            for container in self._containers()
            for joined in container.joined
            if joined.network_id == network_id
        ]

    # ---- making

    async def create(self, request: NetworkCreate) -> tuple[str, str]:
        """Make a network; its id and a warning. Errors: InvalidArgument, Conflict, Forbidden, NotFound (driver)."""
        if not request.name:
            raise InvalidArgument("network name cannot be empty")  # a name of blanks is caught below
        if request.name in _RESERVED:
            raise Forbidden(f"operation is not permitted on predefined {request.name} network ")
        if NAME_PATTERN.fullmatch(request.name) is None and len(request.name) > 1:
            raise InvalidArgument(f"invalid network name: {request.name!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
        if request.scope == "swarm":
            raise Forbidden("cannot create a swarm scoped network when swarm is not active")
        if request.ingress:
            raise Forbidden("Ingress network can only be global scope network")
        overlay = request.driver == "overlay" and "overlay" not in self._drivers.known(NetworkDriver)
        if overlay or request.scope not in ("", "local"):
            raise Unavailable(NOT_A_MANAGER)
        async with self._lock:
            if request.name in self._ids:
                raise Conflict(f"network with name {request.name} already exists")
            if request.config_only:
                record = await self._configure(request)
            else:
                record = await self._make(self._completed(request))
        self._events.emit("network", "create", record.id, {"name": record.name, "type": record.driver})
        return record.id, ""

    async def _configure(self, request: NetworkCreate) -> NetworkRecord:
        record = configurations.make(request)
        await self._metadata.put(TABLE, record.id, record.model_dump_json())
        self._keep(record)
        return record

    def _keep(self, record: NetworkRecord) -> None:
        self._records[record.id] = record
        self._ids[record.name] = record.id

    def _completed(self, request: NetworkCreate) -> NetworkCreate:
        source = request.config_from.network if request.config_from else ""
        if not source:
            return request
        try:
            template = self.get(source)
        except NotFound as error:
            raise NotFound(f'configuration network "{source}" does not exist') from error
        return configurations.complete(request, template)

    async def _make(self, request: NetworkCreate, *, predefined: bool = False, at_once: bool = True) -> NetworkRecord:
        name = request.driver or self._settings.default_network_driver
        driver = await self._driver(name)
        ipam_request = request.ipam or IPAM()
        record = NetworkRecord(
            id=new_id(),
            name=request.name,
            created=rfc3339(),
            driver=name,
            internal=request.internal,
            attachable=request.attachable,
            enable_ipv4=request.enable_ipv4,
            enable_ipv6=request.enable_ipv6,
            options={**self._settings.default_network_opts.get(name, {}), **request.options},
            labels=request.labels,
            ipam_driver=ipam_request.driver or "default",
            ipam_options=ipam_request.options,
            predefined=predefined,
            config_from=request.config_from.network if request.config_from else "",
        )
        if NetworkCapability.MULTIPLE not in driver.capabilities and any(
            other.driver == name and not other.config_only for other in self._records.values()
        ):
            raise Forbidden(f'only one instance of "{name}" network is allowed')
        interfaces.check_prefix(record.options)
        planned = await driver.call(NetworkDriver.plan, as_network(record))
        record.planned = dict(planned.options)
        record.needs_gateway = planned.needs_gateway
        record.host_address = str(planned.host_address or "")
        record.direct = sorted(planned.direct)
        async with Undo(f"network {record.name}") as undo:
            if NetworkCapability.ADDRESSES in driver.capabilities:
                ipam = await self.ipam(record.ipam_driver)
                record.pools = await lease_pools(
                    ipam,
                    ipam_request,
                    ipv4=record.enable_ipv4,
                    ipv6=record.enable_ipv6,
                    needs_gateway=record.needs_gateway,
                    avoid=lambda: (*self._subnets(), *host_subnets()),
                    undo=undo,
                )
            if at_once:
                undo.add("network", lambda: driver.call(NetworkDriver.delete_network, as_network(record)))
                await driver.call(NetworkDriver.create_network, as_network(record))
                self._made.add(record.id)
            await self._metadata.put(TABLE, record.id, record.model_dump_json())
            undo.commit()
        self._keep(record)
        return record

    def _subnets(self) -> Iterable[Subnet]:
        return (subnet_of(pool.subnet) for record in self._records.values() for pool in record.pools)

    async def ensure(self, record: NetworkRecord) -> None:
        """Make the network's kernel objects if this daemon has not seen them yet (a network kept over a reboot)."""
        if record.id in self._made:
            return
        async with self._lock:
            if record.id not in self._made:
                driver = await self._driver(record.driver)
                await driver.call(NetworkDriver.create_network, as_network(record))
                self._made.add(record.id)

    async def _driver(self, name: str) -> Supervised[NetworkDriver]:
        try:
            return await self._drivers.get(NetworkDriver, name)
        except NotFound as error:
            log.info("%s", error)
            raise NotFound(f'plugin "{name}" not found') from error

    def default_host_address(self, record: NetworkRecord) -> Address:
        """Where ports are published that name no address, if the network's driver has no opinion."""
        return ip_address(self._settings.default_bind_address if record.predefined else "0.0.0.0")

    async def driver_of(self, record: NetworkRecord) -> Supervised[NetworkDriver]:
        return await self._drivers.get(NetworkDriver, record.driver)

    async def ipam(self, name: str) -> Supervised[IpamDriver]:
        return await self._drivers.get(IpamDriver, name)

    # ---- removing

    async def remove(self, ref: str) -> None:
        """Errors: NotFound, Forbidden (predefined, or with endpoints: Docker's 403)."""
        async with self._lock:
            record = self.get(ref)
            if record.predefined:
                raise Forbidden(f"{record.name} is a pre-defined network and cannot be removed")
            if self.busy.get(record.id):
                raise Forbidden(f"error while removing network: network {record.name} id {record.id} has active endpoints")
            if record.config_only and any(other.config_from == record.name for other in self._records.values()):
                raise Forbidden(f'error while removing network: configuration network "{record.name}" is in use')
            await self._unmake(record)
        self._events.emit("network", "destroy", record.id, {"name": record.name, "type": record.driver})

    async def _unmake(self, record: NetworkRecord) -> None:
        if not record.config_only:
            driver = await self.driver_of(record)
            await driver.call(NetworkDriver.delete_network, as_network(record))
        self._made.discard(record.id)
        await self._metadata.delete(TABLE, record.id)
        del self._records[record.id], self._ids[record.name]
        if record.pools:
            ipam = await self.ipam(record.ipam_driver)
            for pool in record.pools:
                await ipam.call(IpamDriver.release_pool, pool.id)

    async def prune(self, filters: Filters) -> list[str]:
        """Remove all networks that no container uses, running or not; their names."""
        check(filters, _PRUNE_FILTERS)
        until = [moment(text, time.time_ns()) for text in filters.get("until", ())]
        used = {endpoint for container in self._containers() for endpoint in container.networks}
        removed = []
        for record in list(self._records.values()):
            if record.predefined or record.config_only or record.name in used or not labels_match(filters, record.labels):
                continue
            if any(parse_rfc3339(record.created) > limit for limit in until):
                continue
            try:
                await self.remove(record.id)
            except WharfieError as error:
                log.warning("network %s is not pruned: %s", record.name, error)
                continue
            removed.append(record.name)
        self._events.emit("network", "prune", "", {"reclaimed": "0"})
        return removed

    # ---- starting and stopping

    async def open(self) -> None:
        """Read the records, and make the predefined networks whose drivers are installed."""
        for document in self._metadata.all(TABLE).values():
            self._keep(NetworkRecord.model_validate_json(document))

    async def make_predefined(self) -> None:
        """bridge, host and none, once for a data root; the default bridge again when its settings changed."""
        wanted = {"host": "host", "none": "null"}
        if self._settings.bridge != "none":
            wanted["bridge"] = self._settings.default_network_driver
        installed = self._drivers.known(NetworkDriver)
        for name in PREDEFINED:
            record = next((r for r in self._records.values() if r.predefined and r.name == name), None)
            if name not in wanted:
                if record is not None and not self.busy.get(record.id):
                    await self._unmake(record)
                continue
            if wanted[name] not in installed:
                log.warning('no default network "%s": network driver "%s" is not installed', name, wanted[name])
                continue
            request = self._predefined(name, wanted[name])
            if record is not None and not _differs(record, request):
                continue
            if record is not None:
                if self.busy.get(record.id):
                    log.warning("network %s keeps its old settings while containers are in it", name)
                    continue
                await self._unmake(record)
            try:
                await self._make(request, predefined=True, at_once=False)
            except WharfieError as error:
                log.error("the default network %s cannot be made: %s", name, error)

    def _predefined(self, name: str, driver: str) -> NetworkCreate:
        request = NetworkCreate(name=name, driver=driver)
        if name != "bridge":
            return request
        settings = self._settings
        request.enable_ipv6 = settings.ipv6
        request.options = {
            "com.docker.network.bridge.default_bridge": "true",
            "com.docker.network.bridge.enable_icc": str(settings.icc).lower(),
            "com.docker.network.bridge.enable_ip_masquerade": str(settings.ip_masq).lower(),
            "com.docker.network.bridge.host_binding_ipv4": settings.default_bind_address,
            "com.docker.network.bridge.name": settings.bridge,
            "com.docker.network.driver.mtu": str(settings.mtu),
        }
        pools = [_default_pool(settings.bip, settings.fixed_cidr, {"DefaultGatewayIPv4": settings.default_gateway})]
        if settings.ipv6:
            gateway = {"DefaultGatewayIPv6": settings.default_gateway_v6}
            pools.append(_default_pool(settings.bip6, settings.fixed_cidr_v6, gateway))
        request.ipam = IPAM(config=[pool for pool in pools if pool is not None])
        return request

    async def reconcile(self, running: Sequence[Container]) -> None:
        """Tell IPAM and network drivers what holds: after a start, and when the kernel may have lost something."""
        for name in {record.ipam_driver for record in self._records.values() if record.pools}:
            try:
                await self.reconcile_ipam(name, running)
            except WharfieError as error:
                log.error('IPAM driver "%s" cannot be brought up to date: %s', name, error)
        for name in {record.driver for record in self._records.values()}:
            try:
                await self.reconcile_driver(name, running)
            except WharfieError as error:
                log.error('network driver "%s" cannot be brought up to date: %s', name, error)

    async def reconcile_ipam(self, name: str, running: Iterable[Container]) -> None:
        """Tell one IPAM driver which pools and addresses are held. Errors: the driver's."""
        joined = [endpoint for container in running for endpoint in container.joined]
        leases = [
            lease_of(pool, [*_addresses(joined, record.id), *self.promised.get(record.id, ())])
            for record in self._records.values()
            if record.ipam_driver == name
            for pool in record.pools
        ]
        await (await self.ipam(name)).call(IpamDriver.reconcile, leases)

    async def reconcile_driver(self, name: str, running: Iterable[Container]) -> None:
        """Tell one network driver which networks and endpoints are there. Errors: the driver's."""
        joined = [endpoint for container in running for endpoint in container.joined]
        records = [record for record in self._records.values() if record.driver == name]
        ids = {record.id for record in records}
        driver = await self._drivers.get(NetworkDriver, name)
        faults = await driver.call(
            NetworkDriver.reconcile,
            [as_network(record) for record in records if record.id in self._made or _used(joined, record.id)],
            [endpoint.joined for endpoint in joined if endpoint.network_id in ids],
        )
        self._made |= {record.id for record in records if _used(joined, record.id)}
        for fault in faults:
            log.error("network %s: %s", fault.object, fault.reason)

    async def tear_down(self) -> None:
        """At a clean end without running containers: take our kernel objects away; the records stay."""
        for name, driver in self._drivers.loaded(NetworkDriver).items():
            try:
                await driver.call(NetworkDriver.reconcile, [], [])
            except WharfieError as error:
                log.warning('network driver "%s" leaves its objects: %s', name, error)
        self._made.clear()


def _matches(record: NetworkRecord, filters: Filters) -> bool:
    """The filters by one field each: of several values one has to fit."""
    tests: Mapping[str, Callable[[str], bool]] = {
        "driver": lambda text: text == record.driver,
        "id": lambda text: text in record.id,
        "name": lambda text: text in record.name,
        "scope": lambda text: text == record.scope,
    }
    return all(not filters.get(name) or any(map(test, filters[name])) for name, test in tests.items())


def _used(joined: Iterable[JoinedEndpoint], network_id: str) -> bool:
    return any(endpoint.network_id == network_id for endpoint in joined)


def _addresses(joined: Iterable[JoinedEndpoint], network_id: str) -> list[Address]:
    return [
        interface.ip
        for endpoint in joined
        if endpoint.network_id == network_id
        for interface in endpoint.joined.endpoint.addresses
    ]


def _differs(record: NetworkRecord, request: NetworkCreate) -> bool:
    """Whether the default network's settings were changed since it was recorded."""
    if record.driver != request.driver or record.enable_ipv6 != request.enable_ipv6:
        return True
    if any(record.options.get(key) != value for key, value in request.options.items()):
        return True
    asked = {ip_network(pool.subnet).version: pool for pool in (request.ipam and request.ipam.config) or ()}
    has = {ip_network(pool.subnet).version: pool for pool in record.pools}
    return any(_pool_differs(has.get(version), asked.get(version)) for version in has.keys() | asked.keys())


def _pool_differs(has: PoolRecord | None, asked: IPAMPool | None) -> bool:
    if asked is None:
        return has is not None and has.user_gateway
    if has is None or has.auxiliary != (asked.auxiliary_addresses or {}):
        return True
    return (has.subnet, has.gateway, has.ip_range) != (asked.subnet, asked.gateway, asked.ip_range)


def _default_pool(address: str, part: str, router: Mapping[str, str]) -> IPAMPool | None:
    """From the bridge's address with its prefix, and the part of the subnet that is handed out; without an address the part
    is the whole. `router`: the address of another gateway by its name, or an empty one. None: neither is given."""
    if address:
        interface = ip_interface(address)
        subnet, gateway = interface.network, interface.ip
    elif part:
        subnet = ip_network(part)
        gateway, part = subnet[1], ""
    else:
        return None
    others = {name: text for name, text in router.items() if text and ip_address(text) != gateway}
    return IPAMPool(subnet=str(subnet), gateway=str(gateway), ip_range=part, auxiliary_addresses=others)
