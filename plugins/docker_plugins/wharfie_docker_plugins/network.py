"""Networks by a legacy NetworkDriver (libnetwork's remote driver protocol).

The plugin makes an interface in the host's namespace and says how it is called; the engine's side, here, moves it into the
sandbox, names it, gives it its addresses and routes, and brings it back before the endpoint is deleted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_interface
from typing import Any, ClassVar

from wharfie.spi.driver import Context, Fault, Strings
from wharfie.spi.errors import DriverError, WharfieError
from wharfie.spi.ipam import Address, Interface
from wharfie.spi.network import Attachment, Endpoint, Joined, Network, NetworkCapability, NetworkDriver, Pool, Port, Sandbox
from wharfie_docker_plugins.client import Document, MethodAbsent, Plugin, Refused
from wharfie_docker_plugins.interface import bring_back, is_wired, move_in, set_default_routes
from wharfie_docker_plugins.ledger import Ledger
from wharfie_docker_plugins.wiring import Wiring, wiring_of

_SECONDS = 9
"""Below the contract's ten, so that a plugin that hangs costs no worker."""
_GENERIC = "com.docker.network.generic"
_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}  # IP protocol numbers, as in libnetwork's TransportPort


class LegacyNetwork(NetworkDriver):
    """`networks.json` (kept) and `endpoints.json` (until a reboot) say what the plugin was told to make. The plugin
    remembers its networks itself, also over a restart of the daemon: they are deleted when the user says so, never by
    `reconcile`."""

    spi: ClassVar[str] = "1.0"
    plugin: ClassVar[Plugin]

    def __init__(self, context: Context, settings: Any) -> None:
        self._context = context
        self._facts: Document = {}

    def open(self) -> None:
        self._networks = Ledger(self._context.state / "networks.json")
        self._endpoints = Ledger(self._context.run / "endpoints.json")
        self._facts = self._call("GetCapabilities", {})

    def capabilities(self) -> frozenset[NetworkCapability]:
        found = {
            NetworkCapability.NAMESPACE,
            NetworkCapability.MULTIPLE,
            NetworkCapability.ADDRESSES,
            NetworkCapability.PUBLISH,
        }
        if self._facts.get("Scope") == "global":
            found.add(NetworkCapability.GLOBAL_DATA)
        if self._facts.get("ConnectivityScope", self._facts.get("Scope")) == "global":
            found.add(NetworkCapability.GLOBAL_CONNECTIVITY)
        return frozenset(found)

    def probe(self) -> None:
        self.plugin.call("NetworkDriver.GetCapabilities", {}, seconds=1)

    def plan(self, draft: Network) -> Network:
        if self._facts.get("GwAllocChecker") is not True:
            return draft
        try:
            answer = self.plugin.call("NetworkDriver.GwAllocCheck", {"Options": _network_options(draft)}, seconds=4)
        except MethodAbsent:
            return draft
        return dataclasses.replace(draft, needs_gateway=answer.get("SkipIPv4") is not True)

    def create_network(self, network: Network) -> None:
        made = self._networks.get(network.id)
        if made == "made":
            return
        if made is not None:  # a killed daemon was told by nobody whether the plugin had made it
            self._quietly("DeleteNetwork", {"NetworkID": network.id})
        self._networks[network.id] = "making"
        request = {
            "NetworkID": network.id,
            "Options": _network_options(network),
            "IPv4Data": [_pool(pool) for pool in network.pools if pool.subnet.version == 4],
            "IPv6Data": [_pool(pool) for pool in network.pools if pool.subnet.version == 6],
        }
        try:
            self.plugin.call("NetworkDriver.CreateNetwork", request, seconds=_SECONDS)
        except Refused:
            del self._networks[network.id]
            raise
        self._networks[network.id] = "made"

    def delete_network(self, network: Network) -> None:
        if network.id in self._networks:
            self._networks[network.id] = "deleting"
            self.plugin.call("NetworkDriver.DeleteNetwork", {"NetworkID": network.id}, seconds=_SECONDS)
            self._networks.pop(network.id, None)

    def join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Attachment:
        row = self._endpoints.get(endpoint.id)
        if row is not None and "name" in row:
            wiring = wiring_of(endpoint, row["interface"], row["join"])
            wiring = dataclasses.replace(wiring, name=row["name"], mac=row["mac"])
            if not wiring.source or is_wired(wiring, sandbox.path):
                set_default_routes(wiring, sandbox.path)
                return _attachment(wiring)
        if row is not None:  # of a call that was cut off
            self._undo(network.id, endpoint.id)
        try:
            return self._join(network, endpoint, sandbox)
        except BaseException:
            self._undo(network.id, endpoint.id)
            raise

    def _join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Attachment:
        ids = _ids(network.id, endpoint.id)
        self._endpoints[endpoint.id] = {"network": network.id}
        given = _interface(endpoint)
        options = _endpoint_options(endpoint, ())
        answer = self._call("CreateEndpoint", {**ids, "Interface": given, "Options": options})
        made = _checked_interface(given, answer.get("Interface"))
        document = {**ids, "SandboxKey": str(sandbox.path), "Options": options}
        joined = dict(self._call("Join", document))
        row = {"network": network.id, "interface": made, "join": joined}
        self._endpoints[endpoint.id] = row
        wiring = wiring_of(endpoint, made, joined)
        if wiring.source:
            wiring = move_in(wiring, sandbox.path)
            set_default_routes(wiring, sandbox.path)
        if endpoint.default_route4 or endpoint.default_route6:
            self._call("ProgramExternalConnectivity", {**ids, "Options": options}, absent_is_fine=True)
        self._endpoints[endpoint.id] = {**row, "name": wiring.name, "mac": wiring.mac}
        return _attachment(wiring)

    def leave(self, network: Network, joined: Joined) -> None:
        endpoint = joined.endpoint
        row = self._endpoints.get(endpoint.id)
        if row is None:
            return
        ids = _ids(network.id, endpoint.id)
        begun = row.get("leaving") is True  # a killed daemon does not know how far it came
        self._endpoints[endpoint.id] = {**row, "leaving": True}
        failures: list[WharfieError] = []
        if endpoint.default_route4 or endpoint.default_route6:
            self._try(failures, "RevokeExternalConnectivity", ids, absent_is_fine=True)
        self._try(failures, "Leave", ids)
        if joined.sandbox is not None and row.get("join") is not None:
            wiring = wiring_of(endpoint, row["interface"], row["join"])
            bring_back(wiring, joined.sandbox.path)
        self._try(failures, "DeleteEndpoint", ids)
        if begun:
            failures = [failure for failure in failures if not isinstance(failure, Refused)]
        if failures:
            raise failures[0]
        self._endpoints.pop(endpoint.id, None)

    def publish(self, network: Network, joined: Joined) -> None:
        ids = _ids(network.id, joined.endpoint.id)
        self._call("RevokeExternalConnectivity", ids, absent_is_fine=True)
        options = _endpoint_options(joined.endpoint, joined.ports)
        self._call("ProgramExternalConnectivity", {**ids, "Options": options}, absent_is_fine=True)

    def unpublish(self, network: Network, joined: Joined) -> None:
        if joined.endpoint.id in self._endpoints:
            self._call("RevokeExternalConnectivity", _ids(network.id, joined.endpoint.id), absent_is_fine=True)

    def describe(self, network: Network, joined: Joined) -> Strings:
        try:
            answer = self.plugin.call("NetworkDriver.EndpointOperInfo", _ids(network.id, joined.endpoint.id), seconds=4)
        except MethodAbsent:
            return {}
        value = answer.get("Value")
        return {str(key): str(text) for key, text in value.items()} if isinstance(value, Mapping) else {}

    def reconcile(self, networks: Sequence[Network], joined: Sequence[Joined]) -> Sequence[Fault]:
        wanted = {one.endpoint.id for one in joined}
        for endpoint_id in self._endpoints:
            if endpoint_id not in wanted:
                self._undo(self._endpoints[endpoint_id]["network"], endpoint_id)
        known = {network.id for network in networks}
        for network_id in self._networks:
            if self._networks[network_id] != "made" and network_id not in known:
                self._quietly("DeleteNetwork", {"NetworkID": network_id})
                self._networks.pop(network_id, None)
        faults = []
        for network in networks:
            try:
                self.create_network(network)
            except WharfieError as error:
                faults.append(Fault(object=network.id, reason=error.message))
        by_id = {network.id: network for network in networks}
        for one in joined:
            network_of = by_id.get(one.endpoint.network_id)
            if network_of is not None and one.sandbox is not None:
                try:
                    self.join(network_of, one.endpoint, one.sandbox)
                except WharfieError as error:
                    faults.append(Fault(object=one.endpoint.id, reason=error.message))
        return faults

    # Calls

    def _call(self, method: str, document: Document, *, absent_is_fine: bool = False) -> Document:
        try:
            return self.plugin.call(f"NetworkDriver.{method}", document, seconds=_SECONDS)
        except MethodAbsent:
            if absent_is_fine:
                return {}
            raise

    def _try(self, failures: list[WharfieError], method: str, document: Document, *, absent_is_fine: bool = False) -> None:
        try:
            self._call(method, document, absent_is_fine=absent_is_fine)
        except WharfieError as error:
            failures.append(error)

    def _quietly(self, method: str, document: Document) -> None:
        """Undo what may not be there."""
        try:
            self._call(method, document)
        except WharfieError as error:
            self._context.log.info("%s", error.message)

    def _undo(self, network_id: str, endpoint_id: str) -> None:
        ids = _ids(network_id, endpoint_id)
        if "join" in self._endpoints.get(endpoint_id, {}):
            self._quietly("Leave", ids)
        self._quietly("DeleteEndpoint", ids)
        self._endpoints.pop(endpoint_id, None)


def _ids(network_id: str, endpoint_id: str) -> dict[str, Any]:
    return {"NetworkID": network_id, "EndpointID": endpoint_id}


def _network_options(network: Network) -> dict[str, Any]:
    options: dict[str, Any] = {
        _GENERIC: dict(network.options),
        "com.docker.network.enable_ipv4": network.ipv4,
        "com.docker.network.enable_ipv6": network.ipv6,
    }
    if network.internal:
        options["com.docker.network.internal"] = True
    return options


def _pool(pool: Pool) -> dict[str, Any]:
    def sized(address: Address | str) -> str:
        return f"{address}/{pool.subnet.prefixlen}"

    document: dict[str, Any] = {"AddressSpace": "LocalDefault", "Pool": str(pool.subnet)}
    if pool.gateway is not None:
        document["Gateway"] = sized(pool.gateway)
    if pool.auxiliary:
        document["AuxAddresses"] = {name: sized(address) for name, address in pool.auxiliary.items()}
    return document


def _interface(endpoint: Endpoint) -> dict[str, str]:
    return {
        "Address": _first(endpoint.addresses, 4),
        "AddressIPv6": _first(endpoint.addresses, 6),
        "MacAddress": endpoint.mac,
    }


def _first(addresses: Iterable[Interface], version: int) -> str:
    return next((str(address) for address in addresses if address.version == version), "")


def _checked_interface(given: Mapping[str, str], answer: Any) -> dict[str, str]:
    """What the interface shall have. The plugin may fill in what it was not given, and change nothing."""
    made = dict(given)
    for field, value in (answer if isinstance(answer, Mapping) else {}).items():
        if not value or field not in made:
            continue
        if made[field]:
            raise DriverError(f"NetworkDriver.CreateEndpoint: the plugin answers {field} {value}, given was {made[field]}")
        made[field] = str(value)
    for field in ("Address", "AddressIPv6"):
        try:
            ip_interface(made[field] or "0.0.0.0")  # stands for "none"
        except ValueError as error:
            raise DriverError(f"NetworkDriver.CreateEndpoint: {field}: {error}") from None
    return made


def _endpoint_options(endpoint: Endpoint, ports: Sequence[Port]) -> dict[str, Any]:
    options: dict[str, Any] = dict(endpoint.options)
    exposed = dict.fromkeys((_PROTOCOLS[port.protocol], port.container_port) for port in ports)
    options["com.docker.network.endpoint.exposedports"] = [{"Proto": proto, "Port": port} for proto, port in exposed]
    address = next((str(address.ip) for address in endpoint.addresses if address.version == 4), "")
    options["com.docker.network.portmap"] = [
        {
            "Proto": _PROTOCOLS[port.protocol],
            "IP": address,
            "Port": port.container_port,
            "HostIP": str(port.host_address),
            "HostPort": port.host_port,
            "HostPortEnd": port.host_port,
        }
        for port in ports
    ]
    return options


def _attachment(wiring: Wiring) -> Attachment:
    return Attachment(
        interface=wiring.name,
        mac=wiring.mac,
        addresses=wiring.addresses,
        gateway4=wiring.gateway4,
        gateway6=wiring.gateway6,
        routes=wiring.routes,
        data={"source": wiring.source},
    )
