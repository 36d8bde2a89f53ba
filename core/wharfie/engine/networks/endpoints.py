"""Endpoints: a container's way into its networks at start, while it runs, and out again.

The order at a start: addresses are taken, the runtime makes the namespace, drivers join it, ports are published. The
endpoint that has the default route (see `gateways`) publishes the ports; both move when a network joins or leaves.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Interface, ip_address, ip_network
from pathlib import Path

from wharfie.engine.actions import Actions
from wharfie.engine.events import Events
from wharfie.engine.identity import new_id
from wharfie.engine.model.container import Container, JoinedEndpoint, NetworkRecord, PoolRecord
from wharfie.engine.model.network import EndpointSettings
from wharfie.engine.networks import gateways, interfaces, link_local, sysctls
from wharfie.engine.networks.addressing import as_network
from wharfie.engine.networks.names import Names
from wharfie.engine.networks.networks import Networks
from wharfie.engine.networks.publishing import Publishing
from wharfie.engine.undo import Undo
from wharfie.plugins.supervisor import Supervised
from wharfie.spi.driver import ContainerFacts
from wharfie.spi.errors import Conflict, InvalidArgument, NotFound, OutOfSpace, WharfieError
from wharfie.spi.ipam import CONTAINER_NAME, Address, Interface, IpamDriver
from wharfie.spi.network import Attachment, Endpoint, Joined, NetworkDriver, Port, Sandbox

log = logging.getLogger(__name__)

Routes = tuple[bool, bool]
"""Whether an endpoint has the default route of IPv4, of IPv6."""


class Endpoints:
    """Joining and leaving. The caller holds the container's lock and stores the container afterwards."""

    def __init__(self, networks: Networks, names: Names, publishing: Publishing, events: Events, actions: Actions) -> None:
        self._networks = networks
        self._names = names
        self.publishing = publishing
        self._events = events
        self._actions = actions

    # ---- a start

    async def allocate(self, container: Container, facts: ContainerFacts, undo: Undo) -> list[Endpoint]:
        """Take addresses for all of the container's networks; the networks are busy from now on."""
        endpoints: list[Endpoint] = []
        try:
            wanted = [(self._networks.of(name, settings), settings) for name, settings in container.networks.items()]
        except NotFound as error:
            raise NotFound(f"failed to set up container networking: {error.message}") from error
        chosen = [gateways.choose(wanted, version) for version in gateways.VERSIONS]
        with self._actions.timed("network", "allocate"):
            for record, settings in wanted:
                routes = (record.id == chosen[0], record.id == chosen[1])
                interface = interfaces.choose(record, settings, [endpoint.interface for endpoint in endpoints])
                mac = settings.mac_address or ("" if endpoints else container.config.mac_address)
                endpoints.append(await self._allocate(container, facts, record, settings, interface, mac, routes, undo))
        return endpoints

    async def _allocate(
        self,
        container: Container,
        facts: ContainerFacts,
        record: NetworkRecord,
        settings: EndpointSettings,
        interface: str,
        mac: str,
        routes: Routes,
        undo: Undo,
    ) -> Endpoint:
        busy = self._networks.busy.setdefault(record.id, set())
        if container.id not in busy:
            busy.add(container.id)

            async def idle() -> None:
                busy.discard(container.id)

            undo.add("use of the network", idle)
        wanted = _wanted(settings)
        names = {CONTAINER_NAME: container.name}
        addresses: list[Interface] = []
        for version in gateways.VERSIONS:
            pools = [pool for pool in record.pools if ip_network(pool.subnet).version == version]
            if pools:
                addresses.append(await self._lease(record, pools, wanted.get(version), names, undo))
        return Endpoint(
            id=new_id(),
            network_id=record.id,
            container=facts,
            interface=interface,
            mac=mac,
            addresses=tuple(addresses),
            default_route4=routes[0],
            default_route6=routes[1],
            options=dict(settings.driver_opts or {}),
        )

    async def _lease(
        self,
        record: NetworkRecord,
        pools: Sequence[PoolRecord],
        wanted: Address | None,
        names: Mapping[str, str],
        undo: Undo,
    ) -> Interface:
        """An address of one of these pools of the network: the wanted one, or the first that is free."""
        ipam = await self._networks.ipam(record.ipam_driver)
        fitting = [pool for pool in pools if wanted is None or wanted in ip_network(pool.subnet)] or pools
        for pool in fitting:
            try:
                lease = await ipam.call(IpamDriver.request_address, pool.id, wanted, names)
            except OutOfSpace:
                if pool is fitting[-1]:
                    raise
                continue
            except Conflict as error:
                raise Conflict(f"failed to set up container networking: {error.message}") from error
            break
        address: Interface = lease.interface
        self._networks.promised.setdefault(record.id, set()).add(address.ip)
        undo.add("address", lambda: self._release(ipam, record, pool.id, address.ip))
        return address

    async def _release(self, ipam: Supervised[IpamDriver], record: NetworkRecord, pool: str, address: Address) -> None:
        self._networks.promised.get(record.id, set()).discard(address)
        await ipam.call(IpamDriver.release_address, pool, address)

    def _kept(self, endpoint: Endpoint) -> None:
        """The container's record has the addresses now."""
        self._networks.promised.get(endpoint.network_id, set()).difference_update(one.ip for one in endpoint.addresses)

    async def join_all(
        self, container: Container, endpoints: Sequence[Endpoint], sandbox: Sandbox, pid: int, undo: Undo
    ) -> None:
        """Join each endpoint and publish the container's ports; fills `container.joined` and `container.networks`.

        `pid`: of the container's process.
        """
        container.joined = []
        container.sandbox_id = sandbox.id
        for (name, settings), endpoint in zip(list(container.networks.items()), endpoints, strict=True):
            joined = await self._join(container, endpoint, sandbox, undo)
            container.joined.append(joined)
            self._kept(endpoint)
            _fill(settings, joined, self._networks.get(endpoint.network_id))
            container.networks[name] = settings
        await self.publishing.publish(container, pid, undo)

    async def _join(self, container: Container, endpoint: Endpoint, sandbox: Sandbox, undo: Undo) -> JoinedEndpoint:
        record = self._networks.get(endpoint.network_id)
        await self._networks.ensure(record)
        driver = await self._networks.driver_of(record)
        network = as_network(record)
        with self._actions.timed("network", "connect"):
            attachment: Attachment = await driver.call(NetworkDriver.join, network, endpoint, sandbox)
        joined = Joined(endpoint=endpoint, sandbox=sandbox, attachment=attachment)
        undo.add("endpoint", lambda: driver.call(NetworkDriver.leave, network, joined))
        await sysctls.apply(sysctls.parse(endpoint.options), sandbox.path, endpoint.interface)
        ipam_config = container.networks[record.name].ipam_config
        further = link_local.parse((ipam_config.link_local_ips if ipam_config else None) or ())
        await link_local.add(further, sandbox.path, endpoint.interface)
        self._name(container, record, joined)

        async def forget() -> None:
            self._names.remove(record.id, container.id)

        undo.add("names", forget)
        self._emit("connect", record, container)
        return JoinedEndpoint(network_id=record.id, network=record.name, joined=joined)

    # ---- while running

    async def follow(self, container: Container, netns: Path) -> None:
        """Another process is the container's first one, in the same namespace, which now is to be opened at `netns`."""
        for index, entry in enumerate(container.joined):
            if entry.joined.sandbox is not None:
                sandbox = replace(entry.joined.sandbox, path=netns)
                container.joined[index] = entry.model_copy(update={"joined": replace(entry.joined, sandbox=sandbox)})
        await self.publishing.follow(container)

    async def connect(self, container: Container, record: NetworkRecord, facts: ContainerFacts, sandbox: Sandbox) -> None:
        """Join one more network; `container.networks` already has it. It takes the default route over if its priority is
        higher, and with it the ports."""
        settings = container.networks[record.name]
        taken = [entry.joined.endpoint.interface for entry in container.joined]
        interface = interfaces.choose(record, settings, taken)
        async with Undo(f"connecting {container.name} to {record.name}") as undo:
            endpoint = await self._allocate(
                container, facts, record, settings, interface, settings.mac_address, (False, False), undo
            )
            joined = await self._join(container, endpoint, sandbox, undo)
            container.joined.append(joined)

            async def back() -> None:
                container.joined[:] = [entry for entry in container.joined if entry.network_id != record.id]
                await self._settle(container, ())

            undo.add("default route", back)
            await self._settle(container, ())
            if not any(entry.joined.ports for entry in container.joined):
                await self.publishing.publish(container, container.state.pid, undo)
            undo.commit()
        self._kept(endpoint)
        _fill(settings, self._entry(container, record), record)

    async def disconnect(self, container: Container, record: NetworkRecord) -> None:
        """Leave one network; another one takes over the default route if this one had it."""
        entry = self._entry(container, record)
        await self._leave(container, entry)
        container.joined.remove(entry)
        await self._settle(container, entry.joined.ports)

    def _entry(self, container: Container, record: NetworkRecord) -> JoinedEndpoint:
        return next(entry for entry in container.joined if entry.network_id == record.id)

    async def _settle(self, container: Container, ports: tuple[Port, ...]) -> None:
        """Give the default routes and the ports to the endpoints that are to have them now. `ports`: of an endpoint that
        has left."""
        here = [
            (self._networks.get(entry.network_id), container.networks[entry.network])
            for entry in container.joined
            if entry.joined.sandbox is not None
        ]
        chosen = [gateways.choose(here, version) for version in gateways.VERSIONS]
        changes: list[tuple[int, Routes]] = []
        for index, entry in enumerate(container.joined):
            routes = (entry.network_id == chosen[0], entry.network_id == chosen[1])
            if routes != (entry.joined.endpoint.default_route4, entry.joined.endpoint.default_route6):
                changes.append((index, routes))
        # A namespace has one default route: who gives one up comes first.
        for index, routes in sorted(changes, key=lambda change: sum(change[1])):
            await self._reroute(container, index, routes)
        await self.publishing.move(container, ports)

    async def _reroute(self, container: Container, index: int, routes: Routes) -> None:
        entry = container.joined[index]
        record, sandbox = self._networks.get(entry.network_id), entry.joined.sandbox
        if sandbox is None:
            return
        endpoint = replace(entry.joined.endpoint, default_route4=routes[0], default_route6=routes[1])
        driver = await self._networks.driver_of(record)
        attachment = await driver.call(NetworkDriver.join, as_network(record), endpoint, sandbox)
        joined = replace(entry.joined, endpoint=endpoint, attachment=attachment)
        container.joined[index] = JoinedEndpoint(network_id=record.id, network=record.name, joined=joined)
        _fill(container.networks[record.name], container.joined[index], record)

    # ---- an end

    async def leave_all(self, container: Container, entries: Sequence[JoinedEndpoint]) -> None:
        """Leave these networks, publish nothing, give everything back. Goes on after failures; may be repeated.

        The sandbox is gone or about to be; `container.joined` no longer has the entries.
        """
        with self._actions.timed("network", "release"):
            for entry in entries:
                await self._leave(container, _without_sandbox(entry))
            await self.publishing.give_up(container.id)
        self._names.forget(container.id)

    async def _leave(self, container: Container, entry: JoinedEndpoint) -> None:
        record = self._networks.get(entry.network_id)
        driver = await self._networks.driver_of(record)
        network = as_network(record)
        try:
            if entry.joined.ports:
                await driver.call(NetworkDriver.unpublish, network, entry.joined)
            await driver.call(NetworkDriver.leave, network, entry.joined)
        except WharfieError as error:
            log.warning("%s: leaving network %s: %s", container.name, record.name, error)
        for pool in record.pools:
            ipam = await self._networks.ipam(record.ipam_driver)
            for interface in entry.joined.endpoint.addresses:
                if interface.ip in ip_network(pool.subnet):
                    await ipam.call(IpamDriver.release_address, pool.id, interface.ip)
        self._names.remove(record.id, container.id)
        self._networks.busy.get(record.id, set()).discard(container.id)
        self._emit("disconnect", record, container)

    async def adopt(self, container: Container) -> None:
        """After a daemon start: a running container is in its networks; hold what it holds."""
        for entry in container.joined:
            record = self._networks.get(entry.network_id)
            self._networks.busy.setdefault(record.id, set()).add(container.id)
            self._name(container, record, entry.joined)
        await self.publishing.adopt(container)

    # ---- names

    def _name(self, container: Container, record: NetworkRecord, joined: Joined) -> None:
        if record.predefined or not record.pools:
            return
        settings = container.networks.get(record.name, EndpointSettings())
        settings.dns_names = names = dns_names(container, settings)
        addresses = [str(interface.ip) for interface in joined.endpoint.addresses]
        self._names.add(record.id, container.id, [*(f"{name}.{record.name}" for name in names), *names], addresses)

    def rename(self, container: Container) -> None:
        """The container has a new name: answer to it."""
        for entry in container.joined:
            self._name(container, self._networks.get(entry.network_id), entry.joined)

    def _emit(self, action: str, record: NetworkRecord, container: Container) -> None:
        self._events.emit(
            "network", action, record.id, {"container": container.id, "name": record.name, "type": record.driver}
        )


def dns_names(container: Container, settings: EndpointSettings) -> list[str]:
    """Names that the container answers to: its own, aliases, the short id, the hostname; in Docker's order."""
    names = [container.name, *(settings.aliases or ()), container.short_id, container.config.hostname]
    return list(dict.fromkeys(name for name in names if name))


def _wanted(settings: EndpointSettings) -> dict[int, Address]:
    if settings.ipam_config is None:
        return {}
    texts = (settings.ipam_config.ipv4_address, settings.ipam_config.ipv6_address)
    try:
        addresses = [ip_address(text) for text in texts if text]
    except ValueError as error:
        raise InvalidArgument(f"invalid endpoint settings: {error}") from error
    return {address.version: address for address in addresses}


def forget_joined(container: Container) -> list[JoinedEndpoint]:
    """Take the endpoints out of the record: what came of them has ended, what the user asked for stays."""
    entries, container.joined, container.sandbox_id = container.joined, [], ""
    for entry in entries:
        _clear(container.networks.get(entry.network, EndpointSettings()), entry.joined.endpoint.mac)
    return entries


def _without_sandbox(entry: JoinedEndpoint) -> JoinedEndpoint:
    joined = replace(entry.joined, sandbox=None)
    return JoinedEndpoint(network_id=entry.network_id, network=entry.network, joined=joined)


def _fill(settings: EndpointSettings, entry: JoinedEndpoint, record: NetworkRecord) -> None:
    """What came of an endpoint, for inspect."""
    attachment = entry.joined.attachment
    settings.network_id = record.id
    settings.endpoint_id = entry.joined.endpoint.id
    settings.mac_address = attachment.mac
    settings.gateway = str(attachment.gateway4 or "")
    settings.ipv6_gateway = str(attachment.gateway6 or "")
    settings.ip_address = settings.global_ipv6_address = ""
    settings.ip_prefix_len = settings.global_ipv6_prefix_len = 0
    for interface in entry.joined.endpoint.addresses:
        if isinstance(interface, IPv4Interface):
            settings.ip_address, settings.ip_prefix_len = str(interface.ip), interface.network.prefixlen
        else:
            settings.global_ipv6_address = str(interface.ip)
            settings.global_ipv6_prefix_len = interface.network.prefixlen


def _clear(settings: EndpointSettings, wanted_mac: str) -> None:
    """What came of an endpoint has ended; what the user asked for stays."""
    settings.mac_address = wanted_mac
    settings.endpoint_id = settings.gateway = settings.ip_address = ""
    settings.ipv6_gateway = settings.global_ipv6_address = ""
    settings.ip_prefix_len = settings.global_ipv6_prefix_len = 0
