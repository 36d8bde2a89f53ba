"""The driver options of a bridge network, taken apart and checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from typing import Literal, get_args

from wharfie.spi.driver import Strings
from wharfie.spi.errors import InvalidArgument
from wharfie.spi.network import Network
from wharfie_net_bridge.names import bridge_name

BRIDGE = "com.docker.network.bridge."
NAME = BRIDGE + "name"
ENABLE_ICC = BRIDGE + "enable_icc"
ENABLE_IP_MASQUERADE = BRIDGE + "enable_ip_masquerade"
HOST_BINDING_IPV4 = BRIDGE + "host_binding_ipv4"
DEFAULT_BRIDGE = BRIDGE + "default_bridge"
INHIBIT_IPV4 = BRIDGE + "inhibit_ipv4"
GATEWAY_MODE_IPV4 = BRIDGE + "gateway_mode_ipv4"
GATEWAY_MODE_IPV6 = BRIDGE + "gateway_mode_ipv6"
TRUSTED_HOST_INTERFACES = BRIDGE + "trusted_host_interfaces"
HOST_IPV4 = "com.docker.network.host_ipv4"
MTU = "com.docker.network.driver.mtu"

GatewayMode = Literal["nat", "nat-unprotected", "routed", "isolated"]
"""How a network meets the world: translated addresses; the same with every port open to direct access; plain routing to
published ports; no gateway address on the bridge (internal networks only)."""

TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})

# Letters that the kernel allows in an interface's name, less those that mean something to nftables.
_INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,14}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeOptions:
    """What a network's options say."""

    bridge: str
    mtu: int
    icc: bool
    masquerade: bool
    inhibit_ipv4: bool
    gateway_mode4: GatewayMode
    gateway_mode6: GatewayMode
    host_ipv4: IPv4Address | None  # leave from this address of the host
    host_binding: IPv4Address | None  # where ports are published that name no address of the host
    trusted: tuple[str, ...]  # interfaces of the host from which containers may be reached directly

    def gateway_mode(self, version: int) -> GatewayMode:
        return self.gateway_mode4 if version == 4 else self.gateway_mode6


def parse(network: Network, mtu: int) -> BridgeOptions:
    """The options of `network`, with defaults for those that are not given. Options that this driver does not know are
    left alone, as Docker does. Errors: InvalidArgument naming the option."""
    given = network.options
    _flag(given, DEFAULT_BRIDGE, default=False)
    trusted = tuple(filter(None, given.get(TRUSTED_HOST_INTERFACES, "").split(":")))
    options = BridgeOptions(
        bridge=_interface(NAME, given.get(NAME) or bridge_name(network.id)),
        mtu=_mtu(given, mtu),
        icc=_flag(given, ENABLE_ICC, default=True),
        masquerade=_flag(given, ENABLE_IP_MASQUERADE, default=True),
        inhibit_ipv4=_flag(given, INHIBIT_IPV4, default=False),
        gateway_mode4=_gateway_mode(given, GATEWAY_MODE_IPV4),
        gateway_mode6=_gateway_mode(given, GATEWAY_MODE_IPV6),
        host_ipv4=_address(given, HOST_IPV4),
        host_binding=_address(given, HOST_BINDING_IPV4),
        trusted=tuple(_interface(TRUSTED_HOST_INTERFACES, name) for name in trusted),
    )
    for option, mode in ((GATEWAY_MODE_IPV4, options.gateway_mode4), (GATEWAY_MODE_IPV6, options.gateway_mode6)):
        if mode == "isolated" and not network.internal:
            raise InvalidArgument(f'{option}: gateway mode "isolated" is for internal networks only; add --internal')
    return options


def _flag(given: Strings, option: str, *, default: bool) -> bool:
    value = given.get(option, "")
    if value == "":
        return default
    if value not in TRUE | FALSE:
        raise InvalidArgument(f'{option}: "{value}" is neither true nor false')
    return value in TRUE


def _mtu(given: Strings, default: int) -> int:
    value = given.get(MTU, "")
    if value == "":
        return default
    if not value.isascii() or not value.isdigit() or not 68 <= int(value) <= 65535:
        raise InvalidArgument(f'{MTU}: "{value}" is not a number from 68 to 65535')
    return int(value)


def _address(given: Strings, option: str) -> IPv4Address | None:
    value = given.get(option, "")
    if value == "":
        return None
    try:
        address = ip_address(value)
    except ValueError:
        address = None
    if not isinstance(address, IPv4Address):
        raise InvalidArgument(f'{option}: "{value}" is not an IPv4 address')
    return address


def _gateway_mode(given: Strings, option: str) -> GatewayMode:
    value = given.get(option, "") or "nat"
    for mode in get_args(GatewayMode):
        if value == mode:
            return mode  # type: ignore[no-any-return]  # one of the literals
    raise InvalidArgument(f'{option}: "{value}" is not a gateway mode; there are {", ".join(get_args(GatewayMode))}')


def _interface(option: str, name: str) -> str:
    if not _INTERFACE.fullmatch(name):
        raise InvalidArgument(
            f'{option}: "{name}" cannot be the name of an interface: 1 to 15 letters, digits and, not first, . @ + -'
        )
    return name
