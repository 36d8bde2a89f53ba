"""A plugin's answers to CreateEndpoint and Join, read as what is to be done with an interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from wharfie.spi.errors import DriverError
from wharfie.spi.ipam import Address, Interface
from wharfie.spi.network import Endpoint, Route

NEXT_HOP, CONNECTED = 0, 1
"""`RouteType`: by a gateway, or straight on the interface."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """`source`: the interface's name in the host's namespace, empty when the plugin makes none. `name`: in the sandbox, the
    plugin's prefix with the engine's number. `default4`: carry the default route."""

    endpoint: str
    source: str
    name: str
    mac: str = ""
    addresses: tuple[Interface, ...] = ()
    gateway4: Address | None = None
    gateway6: Address | None = None
    routes: tuple[Route, ...] = ()
    default4: bool = False
    default6: bool = False


def wiring_of(endpoint: Endpoint, interface: Mapping[str, str], join: Mapping[str, Any]) -> Wiring:
    """Errors: DriverError naming the field that makes no sense."""
    names = join.get("InterfaceName")
    names = names if isinstance(names, Mapping) else {}
    prefix = str(names.get("DstPrefix") or "eth")
    own = str(names.get("DstName") or "")
    return Wiring(
        endpoint=endpoint.id,
        source=str(names.get("SrcName") or ""),
        name=own or prefix + endpoint.interface.lstrip("abcdefghijklmnopqrstuvwxyz"),
        mac=interface["MacAddress"],
        addresses=tuple(ip_interface(text) for text in (interface["Address"], interface["AddressIPv6"]) if text),
        gateway4=_gateway(join, "Gateway"),
        gateway6=_gateway(join, "GatewayIPv6"),
        routes=tuple(map(_route, join.get("StaticRoutes") or ())),
        default4=endpoint.default_route4,
        default6=endpoint.default_route6,
    )


def _gateway(join: Mapping[str, Any], field: str) -> Address | None:
    text = join.get(field)
    try:
        return ip_address(str(text).partition("/")[0]) if text else None
    except ValueError as error:
        raise DriverError(f"NetworkDriver.Join: {field}: {error}") from None


def _route(document: Any) -> Route:
    try:
        via = ip_address(document["NextHop"]) if document.get("RouteType", NEXT_HOP) == NEXT_HOP else None
        return Route(destination=ip_network(document["Destination"], strict=False), via=via)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DriverError(f"NetworkDriver.Join: StaticRoutes: {document!r}: {error}") from None
