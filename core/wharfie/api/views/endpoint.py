"""A container's ports and its places in networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from wharfie.api import versions
from wharfie.api.versions import Version
from wharfie.engine.model.container import Container
from wharfie.engine.model.network import EndpointSettings
from wharfie.spi.network import Port

_LEGACY_NETWORK = "bridge"
_LEGACY_FIELDS = {
    "EndpointID": "",
    "Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
    "IPAddress": "",
    "IPPrefixLen": 0,
    "IPv6Gateway": "",
    "MacAddress": "",
}
"""The endpoint on the default network is repeated here for clients from before user-defined networks."""


def endpoint_view(endpoint: EndpointSettings, version: Version) -> dict[str, Any]:
    """Definition EndpointSettings."""
    view = endpoint.dump()
    if view["IPAMConfig"] is not None:
        view["IPAMConfig"] = {key: value for key, value in view["IPAMConfig"].items() if value}
    if version < versions.GATEWAY_PRIORITY:
        del view["GwPriority"]
    return view


def networks_view(container: Container, version: Version) -> dict[str, Any]:
    """By network name. Which network that is shows from the first attempt to start on, as with Docker."""
    views = {name: endpoint_view(endpoint, version) for name, endpoint in container.networks.items()}
    if container.state.status == "created" and not container.state.error:
        for view in views.values():
            view["NetworkID"] = ""
    return views


def network_settings_view(container: Container, version: Version) -> dict[str, Any]:
    """Definition NetworkSettings."""
    networks = networks_view(container, version)
    legacy = networks.get(_LEGACY_NETWORK, _LEGACY_FIELDS)
    sandboxes = [joined.joined.sandbox for joined in container.joined if joined.joined.sandbox is not None]
    return {
        "Bridge": "",
        "SandboxID": container.sandbox_id,
        "SandboxKey": str(sandboxes[0].path) if sandboxes else "",
        "Ports": port_map_view(container),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        **{name: legacy[name] for name in _LEGACY_FIELDS},
        "Networks": networks,
    }


def _published(container: Container) -> Iterator[Port]:
    for joined in container.joined:
        yield from joined.joined.ports


def _is_up(container: Container) -> bool:
    return container.state.running and bool(container.joined)


def port_map_view(container: Container) -> dict[str, Any]:
    """Definition PortMap: what is exposed, null where it is not published. Empty while nothing runs."""
    ports: dict[str, Any] = {}
    if not _is_up(container):
        return ports
    for port in _published(container):
        binding = {"HostIp": str(port.host_address), "HostPort": str(port.host_port or "")}
        ports.setdefault(f"{port.container_port}/{port.protocol}", []).append(binding)
    for exposed in container.exposed:
        ports.setdefault(exposed, None)
    return ports


def port_list_view(container: Container) -> list[dict[str, Any]]:
    """Definition Port, of lists."""
    if not _is_up(container):
        return []
    published = [
        {
            "IP": str(port.host_address),
            "PrivatePort": port.container_port,
            **({"PublicPort": port.host_port} if port.host_port else {}),
            "Type": port.protocol,
        }
        for port in _published(container)
    ]
    taken = {(port["PrivatePort"], port["Type"]) for port in published}
    return published + [port for port in _exposed(container.exposed) if (port["PrivatePort"], port["Type"]) not in taken]


def _exposed(ports: Iterable[str]) -> Iterator[dict[str, Any]]:
    for port in ports:
        number, _, protocol = port.partition("/")
        yield {"PrivatePort": int(number), "Type": protocol or "tcp"}
