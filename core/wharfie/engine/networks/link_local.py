"""Further link-local addresses of an endpoint (`--link-local-ip`): the core gives them to the interface that a driver made.

They come from no pool and are known to no driver, so a request to the kernel is all there is to it (rtnetlink(7)).
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from wharfie.shim.netns import within
from wharfie.spi.errors import InvalidArgument
from wharfie.spi.ipam import Address

_PREFIX = {4: 16, 6: 64}  # bits; Docker's masks
_RTM_NEWADDR, _NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_CREATE = 20, 1, 4, 0x400
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_SCOPE_LINK = 253
_HEAD = struct.Struct("=IHHII")
_BODY = struct.Struct("=BBBBI")


def parse(texts: Sequence[str]) -> list[Address]:
    """Errors: InvalidArgument."""
    addresses = []
    for text in texts:
        try:
            address = ip_address(text)
        except ValueError:
            raise InvalidArgument(f"invalid link-local IP address: {text}") from None
        if not address.is_link_local:
            raise InvalidArgument(f"invalid link-local IP address: {text}: want one of 169.254.0.0/16 or fe80::/10")
        addresses.append(address)
    return addresses


async def add(addresses: Sequence[Address], namespace: Path, interface: str) -> None:
    """Errors: InvalidArgument (the kernel refuses one)."""
    if addresses:
        await asyncio.to_thread(within, namespace, lambda: _add(addresses, interface))


def _add(addresses: Sequence[Address], interface: str) -> None:
    index = socket.if_nametoindex(interface)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as kernel:
        for address in addresses:
            kernel.send(_request(address, index))
            number = -struct.unpack_from("=i", kernel.recv(4096), _HEAD.size)[0]
            if number:
                raise InvalidArgument(f"link-local address {address} on {interface}: {os.strerror(number)}")


def _request(address: Address, index: int) -> bytes:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = _BODY.pack(family, _PREFIX[address.version], 0, _SCOPE_LINK, index)
    for kind in (_IFA_LOCAL, _IFA_ADDRESS):
        body += struct.pack("=HH", 4 + len(address.packed), kind) + address.packed
    flags = _NLM_F_REQUEST | _NLM_F_ACK | _NLM_F_CREATE
    return _HEAD.pack(_HEAD.size + len(body), _RTM_NEWADDR, flags, 1, 0) + body
