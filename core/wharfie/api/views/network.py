"""Networks: `GET /networks` and `GET /networks/{id}`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wharfie.api import versions
from wharfie.api.versions import Version
from wharfie.engine.model.container import Container, JoinedEndpoint, NetworkRecord, PoolRecord


def network_view(
    network: NetworkRecord, endpoints: Iterable[tuple[Container, JoinedEndpoint]], version: Version
) -> dict[str, Any]:
    """Definition Network. Lists leave the endpoints out."""
    view: dict[str, Any] = {
        "Name": network.name,
        "Id": network.id,
        "Created": network.created,
        "Scope": network.scope,
        "Driver": network.driver,
    }
    if version >= versions.ENABLE_IPV4:
        view["EnableIPv4"] = network.enable_ipv4
    return view | {
        "EnableIPv6": network.enable_ipv6,
        "IPAM": {
            "Driver": network.ipam_driver,
            "Options": network.ipam_options,
            "Config": [*map(_pool_view, network.pools), *_asked_view(network)] or None,
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": network.config_from},
        "ConfigOnly": network.config_only,
        "Containers": {container.id: _endpoint_view(container, joined) for container, joined in endpoints},
        "Options": network.options,
        "Labels": network.labels,
    }


def _asked_view(network: NetworkRecord) -> list[dict[str, Any]]:
    """A configuration network has no pools, only what is to be asked for."""
    asked = (network.asked.config if network.asked else None) or ()
    return [{name: value for name, value in pool.dump().items() if value} for pool in asked]


def _pool_view(pool: PoolRecord) -> dict[str, Any]:
    """What is empty is left out."""
    view = {
        "Subnet": pool.subnet,
        "IPRange": pool.ip_range,
        "Gateway": pool.gateway,
        "AuxiliaryAddresses": pool.auxiliary,
    }
    return {name: value for name, value in view.items() if value}


def _endpoint_view(container: Container, joined: JoinedEndpoint) -> dict[str, str]:
    attachment = joined.joined.attachment
    addresses = attachment.addresses or joined.joined.endpoint.addresses
    by_version = {address.version: str(address) for address in reversed(addresses)}
    return {
        "Name": container.name,
        "EndpointID": joined.joined.endpoint.id,
        "MacAddress": attachment.mac,
        "IPv4Address": by_version.get(4, ""),
        "IPv6Address": by_version.get(6, ""),
    }
