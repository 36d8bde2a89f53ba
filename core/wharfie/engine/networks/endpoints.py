"""Endpoints: a container's way into its networks at start, while it runs, and out again.

The order at a start: addresses are taken, the runtime makes the namespace, drivers join it, ports are published. The
endpoint that has the default route (see `gateways`) publishes the ports; both move when a network joins or leaves.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Interface, ip_address, ip_network
from pathlib import Path

from wharfie.engine.events import Events
from wharfie.engine.identity import new_id
from wharfie.engine.model.container import Container, JoinedEndpoint, NetworkRecord
from wharfie.engine.model.host import PortBinding
from wharfie.engine.model.network import EndpointSettings
from wharfie.engine.networks import gateways, sysctls
from wharfie.engine.networks.addressing import as_network
from wharfie.engine.networks.names import Names
from wharfie.engine.networks.networks import Networks
from wharfie.engine.networks.ports import HostPorts, Scope, place_of
from wharfie.engine.networks.relaying import Relaying
from wharfie.engine.undo import Undo
from wharfie.plugins.supervisor import Supervised
from wharfie.proxy.launch import Place, Target
from wharfie.spi.driver import ContainerFacts
from wharfie.spi.errors import Conflict, InvalidArgument, NotFound, WharfieError
from wharfie.spi.ipam import CONTAINER_NAME, Address, Interface, IpamDriver
from wharfie.spi.network import Attachment, Endpoint, Joined, NetworkCapability, NetworkDriver, Port, Sandbox

log = logging.getLogger(__name__)

_IPV6 = Path("/proc/net/if_inet6")
"""Missing on a host whose kernel does without IPv6."""

Routes = tuple[bool, bool]
"""Whether an endpoint has the default route of IPv4, of IPv6."""


class Endpoints:
    """Joining and leaving. The caller holds the container's lock and stores the container afterwards."""

    def __init__(self, networks: Networks, names: Names, ports: HostPorts, relaying: Relaying, events: Events) -> None:
        self._networks = networks
        self._names = names
        self._ports = ports
        self._relaying = relaying
        self._inherited: Mapping[str, Mapping[Place, socket.socket]] = {}  # sockets from before this daemon, by container
        self._events = events

    # ---- a start

    async def allocate(self, container: Container, facts: ContainerFacts, undo: Undo) -> list[Endpoint]:
        """Take addresses for all of the container's networks; the networks are busy from now on."""
        endpoints: list[Endpoint] = []
        try:
            wanted = [(self._networks.of(name, settings), settings) for name, settings in container.networks.items()]
        except NotFound as error:
            raise NotFound(f"failed to set up container networking: {error.message}") from error
        chosen = [gateways.choose(wanted, version) for version in gateways.VERSIONS]
        for index, (record, settings) in enumerate(wanted):
            routes = (record.id == chosen[0], record.id == chosen[1])
            endpoints.append(await self._allocate(container, facts, record, settings, index, routes, undo))
        return endpoints

    async def _allocate(
        self,
        container: Container,
        facts: ContainerFacts,
        record: NetworkRecord,
        settings: EndpointSettings,
        index: int,
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
        for pool in record.pools:
            ipam = await self._networks.ipam(record.ipam_driver)
            version = ip_network(pool.subnet).version
            try:
                lease = await ipam.call(IpamDriver.request_address, pool.id, wanted.get(version), names)
            except Conflict as error:
                raise Conflict(f"failed to set up container networking: {error.message}") from error
            addresses.append(lease.interface)
            self._networks.promised.setdefault(record.id, set()).add(lease.interface.ip)
            undo.add(
                "address",
                lambda ipam=ipam, pool=pool.id, ip=lease.interface.ip: self._release(  # type: ignore[misc]
                    ipam, record, pool, ip
                ),
            )
        return Endpoint(
            id=new_id(),
            network_id=record.id,
            container=facts,
            interface=f"eth{index}",
            mac=settings.mac_address or (container.config.mac_address if index == 0 else ""),
            addresses=tuple(addresses),
            default_route4=routes[0],
            default_route6=routes[1],
            options=dict(settings.driver_opts or {}),
        )

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
        await self._publish(container, pid, undo)

    async def _join(self, container: Container, endpoint: Endpoint, sandbox: Sandbox, undo: Undo) -> JoinedEndpoint:
        record = self._networks.get(endpoint.network_id)
        await self._networks.ensure(record)
        driver = await self._networks.driver_of(record)
        network = as_network(record)
        attachment: Attachment = await driver.call(NetworkDriver.join, network, endpoint, sandbox)
        joined = Joined(endpoint=endpoint, sandbox=sandbox, attachment=attachment)
        undo.add("endpoint", lambda: driver.call(NetworkDriver.leave, network, joined))
        await sysctls.apply(sysctls.parse(endpoint.options), sandbox.path, endpoint.interface)
        self._name(container, record, joined)

        async def forget() -> None:
            self._names.remove(record.id, container.id)

        undo.add("names", forget)
        self._emit("connect", record, container)
        return JoinedEndpoint(network_id=record.id, network=record.name, joined=joined)

    async def _publish(self, container: Container, pid: int, undo: Undo) -> None:
        bindings = _bindings(container)
        if not bindings:
            return
        carrier = await self._carrier(container)
        if carrier is None:
            return
        index, driver = carrier
        entry = container.joined[index]
        try:
            ports = self._ports.reserve(container.id, bindings, self._scope(entry))
        except WharfieError as error:
            raise type(error)(
                "failed to set up container networking: driver failed programming external connectivity on endpoint "
                f"{container.name} ({entry.joined.endpoint.id}): {error.message}"
            ) from error

        undo.add("host ports", lambda: self._give_up(container.id))
        joined = _with_ports(entry.joined, tuple(self._marked(entry.joined.endpoint, port) for port in ports))
        network = as_network(self._networks.get(entry.network_id))
        await driver.call(NetworkDriver.publish, network, joined)
        undo.add("published ports", lambda: driver.call(NetworkDriver.unpublish, network, joined))
        await self._relay(container.id, joined, pid)
        container.joined[index] = JoinedEndpoint(network_id=entry.network_id, network=entry.network, joined=joined)

    def _scope(self, entry: JoinedEndpoint) -> Scope:
        """Where ports of this endpoint are published."""
        record = self._networks.get(entry.network_id)
        own = {interface.version for interface in entry.joined.endpoint.addresses}
        versions = own if not self._relaying.enabled else own | {6}  # the proxy relays from IPv6 to IPv4, not back
        if not _IPV6.exists():
            versions -= {6}
        network = as_network(record)
        return Scope(
            address=network.host_address or self._networks.default_host_address(record),
            versions=frozenset(versions),
            direct=network.direct,
        )

    def _marked(self, endpoint: Endpoint, port: Port) -> Port:
        """Tell the driver which ports the proxy will serve."""
        relayed = self._relaying.enabled and port.host_port > 0 and _target(endpoint, port) is not None
        return replace(port, relayed=relayed)

    async def _relay(self, id: str, joined: Joined, pid: int) -> None:
        """Let the proxy have the ports too."""
        held = self._ports.held(id)
        routes = {}
        for port in joined.ports:
            place, target = place_of(port), _target(joined.endpoint, port)
            if place in held and target is not None:
                routes[place] = held[place], target
        await self._relaying.serve(id, routes, pid)

    async def _give_up(self, id: str) -> None:
        """Give all host ports of a container back."""
        await self._relaying.drop(id)
        self._ports.release(id)

    async def _carrier(self, container: Container) -> tuple[int, Supervised[NetworkDriver]] | None:
        """The endpoint that publishes ports: the one with the default route (IPv4's, if there is one) if its driver can."""
        endpoints = [entry.joined.endpoint for entry in container.joined]
        carriers = [index for index, endpoint in enumerate(endpoints) if endpoint.default_route4]
        carriers += [index for index, endpoint in enumerate(endpoints) if endpoint.default_route6]
        for index in carriers[:1]:
            driver = await self._networks.driver_of(self._networks.get(container.joined[index].network_id))
            if NetworkCapability.PUBLISH in driver.capabilities:
                return index, driver
        return None

    # ---- while running

    async def connect(self, container: Container, record: NetworkRecord, facts: ContainerFacts, sandbox: Sandbox) -> None:
        """Join one more network; `container.networks` already has it. It takes the default route over if its priority is
        higher, and with it the ports."""
        index = _free_index(container)
        settings = container.networks[record.name]
        async with Undo(f"connecting {container.name} to {record.name}") as undo:
            endpoint = await self._allocate(container, facts, record, settings, index, (False, False), undo)
            joined = await self._join(container, endpoint, sandbox, undo)
            container.joined.append(joined)

            async def back() -> None:
                container.joined[:] = [entry for entry in container.joined if entry.network_id != record.id]
                await self._settle(container, ())

            undo.add("default route", back)
            await self._settle(container, ())
            if not any(entry.joined.ports for entry in container.joined):
                await self._publish(container, container.state.pid, undo)
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
        await self._move_ports(container, ports)

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

    async def _move_ports(self, container: Container, ports: tuple[Port, ...]) -> None:
        """Publish at the endpoint that carries them now; their reservations stay. Without one they are given up."""
        carrier = await self._carrier(container)
        for index, entry in enumerate(container.joined):
            if not entry.joined.ports or (carrier is not None and carrier[0] == index):
                continue
            record = self._networks.get(entry.network_id)
            driver = await self._networks.driver_of(record)
            await driver.call(NetworkDriver.unpublish, as_network(record), entry.joined)
            ports += entry.joined.ports
            container.joined[index] = entry.model_copy(update={"joined": _with_ports(entry.joined, ())})
        if carrier is None or not ports:
            if carrier is None:
                await self._give_up(container.id)
            return
        index, driver = carrier
        entry = container.joined[index]
        joined = _with_ports(entry.joined, ports)
        await driver.call(NetworkDriver.publish, as_network(self._networks.get(entry.network_id)), joined)
        await self._relay(container.id, joined, container.state.pid)
        container.joined[index] = entry.model_copy(update={"joined": joined})

    # ---- an end

    async def leave_all(self, container: Container, entries: Sequence[JoinedEndpoint]) -> None:
        """Leave these networks, publish nothing, give everything back. Goes on after failures; may be repeated.

        The sandbox is gone or about to be; `container.joined` no longer has the entries.
        """
        for entry in entries:
            await self._leave(container, _without_sandbox(entry))
        await self._give_up(container.id)
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

    async def open(self) -> None:
        """Find what a helper of the last daemon holds."""
        self._inherited = await self._relaying.open()

    async def adopt(self, container: Container) -> None:
        """After a daemon start: a running container is in its networks; hold what it holds."""
        for entry in container.joined:
            record = self._networks.get(entry.network_id)
            self._networks.busy.setdefault(record.id, set()).add(container.id)
            self._name(container, record, entry.joined)
            inherited = self._inherited.get(container.id, {})
            for port in self._ports.hold(container.id, entry.joined.ports, inherited):
                log.warning(
                    "%s: host port %s:%d was taken by another process", container.name, port.host_address, port.host_port
                )
            try:
                await self._relay(container.id, entry.joined, container.state.pid)
            except WharfieError as error:
                log.error("%s: %s", container.name, error)

    async def settle(self) -> None:
        """After all running containers were adopted: what is held for others is given up."""
        await self._relaying.drop_strangers(set(self._inherited))
        for sockets in self._inherited.values():
            for held in sockets.values():
                held.close()
        self._inherited = {}

    def close(self) -> None:
        """Let everything go that ends with this process; what containers use goes on."""
        self._relaying.close()
        self._ports.close()

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


def _target(endpoint: Endpoint, port: Port) -> Target | None:
    """Where the proxy takes a port's connections; None: the container has no address that they could go to."""
    addresses = {interface.version: interface.ip for interface in endpoint.addresses}
    address = addresses.get(port.host_address.version)
    if address is None and port.host_address.version == 6:
        address = addresses.get(4)
    return None if address is None else Target(str(address), port.container_port)


def _bindings(container: Container) -> Mapping[str, Sequence[PortBinding]]:
    bindings: dict[str, Sequence[PortBinding]] = dict(container.host_config.port_bindings or {})
    if container.host_config.publish_all_ports:
        for port in container.exposed:
            bindings.setdefault(port, [PortBinding()])
    return bindings


def forget_joined(container: Container) -> list[JoinedEndpoint]:
    """Take the endpoints out of the record: what came of them has ended, what the user asked for stays."""
    entries, container.joined, container.sandbox_id = container.joined, [], ""
    for entry in entries:
        _clear(container.networks.get(entry.network, EndpointSettings()), entry.joined.endpoint.mac)
    return entries


def _without_sandbox(entry: JoinedEndpoint) -> JoinedEndpoint:
    joined = replace(entry.joined, sandbox=None)
    return JoinedEndpoint(network_id=entry.network_id, network=entry.network, joined=joined)


def _with_ports(joined: Joined, ports: tuple[Port, ...]) -> Joined:
    return replace(joined, ports=ports)


def _free_index(container: Container) -> int:
    taken = {entry.joined.endpoint.interface for entry in container.joined}
    return next(index for index in range(len(taken) + 1) if f"eth{index}" not in taken)


def _fill(settings: EndpointSettings, entry: JoinedEndpoint, record: NetworkRecord) -> None:
    """What came of an endpoint, for inspect."""
    attachment = entry.joined.attachment
    settings.network_id = record.id
    settings.endpoint_id = entry.joined.endpoint.id
    settings.mac_address = attachment.mac
    settings.gateway = str(attachment.gateway4 or "")
    settings.ipv6_gateway = str(attachment.gateway6 or "")
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
