"""Forgetting UDP flows whose way has changed.

The kernel decides on a translation at a flow's first packet. A UDP client that never stops sending keeps its flow, so
without this it would miss a port published later, and go on reaching a container that is gone. TCP ends by itself.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from wharfie.spi.ipam import Address

# include/uapi/linux/netfilter: nfnetlink.h, nfnetlink_conntrack.h; filter flags: net/netfilter/nf_internals.h
NETLINK_NETFILTER = 12
IPCTNL_MSG_CT_GET = (1 << 8) | 1
IPCTNL_MSG_CT_DELETE = (1 << 8) | 2
CTA_TUPLE_ORIG = 1
CTA_TUPLE_REPLY = 2
CTA_TUPLE_IP = 1
CTA_TUPLE_PROTO = 2
CTA_PROTO_NUM = 1
CTA_PROTO_SRC_PORT = 2
CTA_PROTO_DST_PORT = 3
CTA_FILTER = 25
CTA_FILTER_ORIG_FLAGS = 1
FILTER_PROTO_NUM = 1 << 3
FILTER_PROTO_DST_PORT = 1 << 5
NLA_F_NESTED = 0x8000
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLMSG_ERROR = 2
NLMSG_DONE = 3

_PATIENCE = 2.0
"""Seconds for an answer of the kernel's."""

_HEADER = struct.Struct("=IHHII")
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class Tuple:
    """One direction of a flow."""

    source: Address
    destination: Address
    source_port: int
    destination_port: int

    def answered_by(self, reply: Tuple) -> bool:
        """Is `reply` the plain way back, with nothing translated?"""
        there = (self.source, self.source_port, self.destination, self.destination_port)
        return there == (reply.destination, reply.destination_port, reply.source, reply.source_port)


def forget_untranslated(host: Address, port: int) -> None:
    """A port was published: end the flows to it that began before. `host` unspecified: to any address.

    Flows that are translated, such as a container's to the same port of some server outside, stay.
    """
    _forget(
        host.version,
        port,
        lambda original, reply: original.answered_by(reply) and (host.is_unspecified or original.destination == host),
    )


def forget_translated(port: int, target: Address, target_port: int) -> None:
    """A port is published no more: end the flows that were led to the container's address `target`."""
    _forget(target.version, port, lambda _, reply: (reply.source, reply.source_port) == (target, target_port))


def _forget(version: int, port: int, stale: Callable[[Tuple, Tuple], bool]) -> None:
    try:
        connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    except OSError:
        return  # a kernel without connection tracking has nothing to forget
    with connection:
        connection.settimeout(_PATIENCE)
        for original, reply, encoded in list(_flows(connection, version, port)):
            if stale(original, reply):
                connection.send(_message(IPCTNL_MSG_CT_DELETE, NLM_F_ACK, version, encoded))
                connection.recv(1 << 16)  # an error means that it is gone already


def _flows(connection: socket.socket, version: int, port: int) -> Iterator[tuple[Tuple, Tuple, bytes]]:
    """UDP flows to `port`: both directions, and the original one as the kernel wrote it."""
    protocol = _nested(
        CTA_TUPLE_PROTO,
        _attribute(CTA_PROTO_NUM, bytes([socket.IPPROTO_UDP])) + _attribute(CTA_PROTO_DST_PORT, port.to_bytes(2, "big")),
    )
    flags = struct.pack("=I", FILTER_PROTO_NUM | FILTER_PROTO_DST_PORT)
    wanted = _nested(CTA_TUPLE_ORIG, protocol) + _nested(CTA_FILTER, _attribute(CTA_FILTER_ORIG_FLAGS, flags))
    connection.send(_message(IPCTNL_MSG_CT_GET, NLM_F_DUMP, version, wanted))
    while True:
        data = connection.recv(1 << 18)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, type_, _, _, _ = _HEADER.unpack_from(data, offset)
            if type_ in (NLMSG_DONE, NLMSG_ERROR):
                return
            attributes = dict(_attributes(data[offset + _HEADER.size + 4 : offset + length]))
            original, reply = _tuple(attributes[CTA_TUPLE_ORIG]), _tuple(attributes[CTA_TUPLE_REPLY])
            # Kernels before 5.8 do not filter.
            if original is not None and reply is not None and original.destination_port == port:
                yield original, reply, _nested(CTA_TUPLE_ORIG, attributes[CTA_TUPLE_ORIG])
            offset += (length + 3) & ~3


def _tuple(data: bytes) -> Tuple | None:
    attributes = dict(_attributes(data))
    addresses = [ip_address(value) for _, value in _attributes(attributes[CTA_TUPLE_IP])]
    protocol = dict(_attributes(attributes[CTA_TUPLE_PROTO]))
    if protocol[CTA_PROTO_NUM][0] != socket.IPPROTO_UDP:
        return None
    ports = [int.from_bytes(protocol[side], "big") for side in (CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT)]
    return Tuple(addresses[0], addresses[1], ports[0], ports[1])


def _message(type_: int, flags: int, version: int, attributes: bytes) -> bytes:
    length = _HEADER.size + 4 + len(attributes)
    return _HEADER.pack(length, type_, flags | NLM_F_REQUEST, 1, 0) + bytes([_FAMILIES[version], 0, 0, 0]) + attributes


def _nested(type_: int, value: bytes) -> bytes:
    return _attribute(type_ | NLA_F_NESTED, value)


def _attribute(type_: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), type_) + value + bytes(-len(value) % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 4 <= len(data):
        length, type_ = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield type_ & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
