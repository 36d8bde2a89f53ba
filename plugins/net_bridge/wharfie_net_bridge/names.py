"""Names of this driver's kernel objects, all derived from ids: nothing has to be remembered."""

from __future__ import annotations

import hashlib

from wharfie.spi.ipam import Interface


def bridge_name(network_id: str) -> str:
    """The bridge of a network that names none, as Docker calls it."""
    return f"br-{network_id[:12]}"


def host_veth(endpoint_id: str) -> str:
    """The host's end of an endpoint's veth pair: 15 characters, the kernel's limit."""
    return f"veth{endpoint_id[:11]}"


def owner(instance: str) -> str:
    """What the alias (IFLA_IFALIAS) of every interface of this daemon begins with."""
    return f"wharfie:{instance}:"


def network_alias(instance: str, network_id: str) -> str:
    return f"{owner(instance)}{network_id}"


def endpoint_alias(instance: str, network_id: str, endpoint_id: str) -> str:
    return f"{owner(instance)}{network_id}:{endpoint_id}"


def bridge_mac(network_id: str) -> str:
    """A fixed address: without one a bridge takes the lowest of its ports' and changes it as they come and go."""
    return _mac(hashlib.sha256(network_id.encode()).digest()[:4])


def endpoint_mac(addresses: tuple[Interface, ...]) -> str:
    """02:42 and the IPv4 address, so that a neighbour's ARP entry stays right when an address is given to the next
    container; for endpoints without IPv4, a digest of the IPv6 address."""
    for address in addresses:
        if address.version == 4:
            return _mac(address.ip.packed)
    return _mac(hashlib.sha256(b"".join(address.ip.packed for address in addresses)).digest()[:4])


def _mac(last_four: bytes) -> str:
    return "02:42:" + last_four.hex(":")
