"""Published ports: taken from the host, programmed by the driver of one endpoint, relayed by the proxy.

A container's ports belong to its endpoint with the default route, and move when another one gets that.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from wharfie.engine.model.container import Container, JoinedEndpoint
from wharfie.engine.model.host import PortBinding
from wharfie.engine.networks.addressing import as_network
from wharfie.engine.networks.networks import Networks
from wharfie.engine.networks.ports import HostPorts, Scope, place_of
from wharfie.engine.networks.relaying import Relaying
from wharfie.engine.undo import Undo
from wharfie.plugins.supervisor import Supervised
from wharfie.proxy.launch import Place, Target
from wharfie.spi.errors import WharfieError
from wharfie.spi.network import Endpoint, Joined, NetworkCapability, NetworkDriver, Port

log = logging.getLogger(__name__)

_IPV6 = Path("/proc/net/if_inet6")
"""Missing on a host whose kernel does without IPv6."""


class Publishing:
    """The caller holds the container's lock and stores the container afterwards."""

    def __init__(self, networks: Networks, relaying: Relaying) -> None:
        self._networks = networks
        self._relaying = relaying
        self._ports = HostPorts()
        self._inherited: Mapping[str, Mapping[Place, socket.socket]] = {}  # sockets from before this daemon, by container

    async def publish(self, container: Container, pid: int, undo: Undo) -> None:
        """Publish what the container wants published, at the endpoint that carries it. `pid`: of its process."""
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

        undo.add("host ports", lambda: self.give_up(container.id))
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

    async def give_up(self, id: str) -> None:
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

    async def move(self, container: Container, ports: tuple[Port, ...]) -> None:
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
                await self.give_up(container.id)
            return
        index, driver = carrier
        entry = container.joined[index]
        joined = _with_ports(entry.joined, ports)
        await driver.call(NetworkDriver.publish, as_network(self._networks.get(entry.network_id)), joined)
        await self._relay(container.id, joined, container.state.pid)
        container.joined[index] = entry.model_copy(update={"joined": joined})

    async def follow(self, container: Container) -> None:
        """Another process is the container's first one: the proxy relays as long as that lives."""
        for entry in container.joined:
            if entry.joined.ports:
                await self._relay(container.id, entry.joined, container.state.pid)

    # ---- starts and ends of the daemon

    async def open(self) -> None:
        """Find what a helper of the last daemon holds."""
        self._inherited = await self._relaying.open()

    async def adopt(self, container: Container) -> None:
        """After a daemon start: hold what a running container has published."""
        inherited = self._inherited.get(container.id, {})
        for entry in container.joined:
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


def _with_ports(joined: Joined, ports: tuple[Port, ...]) -> Joined:
    return replace(joined, ports=ports)
