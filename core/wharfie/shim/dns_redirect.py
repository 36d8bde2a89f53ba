"""The container's port 53 at 127.0.0.11, led to a port that nobody else wants.

A container may run a name server of its own on all its addresses, so ours must not hold port 53 (Docker's does not,
either). Packets on their way out of a process in the network namespace get the other port written into them, and answers
the asked one back: a table of nf_tables with four rules that remember nothing, so no connection tracking is switched on
for the container. It goes with the network namespace. Messages: include/uapi/linux/netfilter/nfnetlink.h and
nf_tables.h of the kernel.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Final

TABLE: Final = b"wharfie-names\0"
_CHAIN: Final = b"output\0"

_NETLINK_NETFILTER: Final = 12
_SUBSYSTEM: Final = 10  # NFNL_SUBSYS_NFTABLES
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEW_TABLE, _DELETE_TABLE, _NEW_CHAIN, _NEW_RULE = (_SUBSYSTEM << 8 | number for number in (0, 2, 3, 6))
_REQUEST, _ACK, _EXCLUSIVE, _CREATE, _APPEND = 0x1, 0x4, 0x200, 0x400, 0x800
_NESTED: Final = 0x8000
_NLMSG_ERROR: Final = 2
_HEAD: Final = struct.Struct("=IHHII")

_TABLE_NAME: Final = 1
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_TYPE = 1, 3, 4, 7
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_LOCAL_OUT: Final = 3
_PRIORITY: Final = (
    -310
)  # before anybody's rules and the connection tracking that they may switch on: these see one port alone
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_ELEMENT, _EXPRESSION_NAME, _EXPRESSION_DATA = 1, 1, 2
_VALUE: Final = 1
_REGISTER: Final = 1

_NETWORK, _TRANSPORT = 1, 2  # payload bases
_CHECKSUM: Final = 1  # NFT_PAYLOAD_CSUM_INET
_L4_PROTOCOL: Final = 16  # NFT_META_L4PROTO
_SOURCE_ADDRESS, _DESTINATION_ADDRESS = 12, 16  # offsets in the IPv4 header (RFC 791)
_SOURCE_PORT, _DESTINATION_PORT = 0, 2  # of TCP and UDP alike (RFC 9293, RFC 768)
_CHECKSUM_OFFSETS: Final = {socket.IPPROTO_UDP: 6, socket.IPPROTO_TCP: 16}


def redirect(address: str, port: int, ports: Sequence[tuple[int, int]]) -> None:
    """In this network namespace: what processes send to `address` at `port` arrives at another one.

    `ports`: (protocol number, the other port). May be repeated: the last call counts.
    Errors: OSError, also when this kernel has no nf_tables.
    """
    attributes = _attribute(_TABLE_NAME, TABLE)
    fresh = _message(_NEW_TABLE, _REQUEST | _CREATE | _EXCLUSIVE, attributes)
    rules = b"".join(_chain(socket.inet_aton(address), port, ports))
    try:
        _commit(fresh + rules)
    except FileExistsError:  # of a process that was killed; the kernel takes its time to delete one (10 ms)
        _commit(_message(_DELETE_TABLE, _REQUEST, attributes) + fresh + rules)


def _commit(messages: bytes) -> None:
    begin, end = (_message(kind, _REQUEST, b"", family=0, resource=_SUBSYSTEM) for kind in (_BATCH_BEGIN, _BATCH_END))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.send(begin + messages + end)
        code = 0
        while not code:  # the first refusal, or the answer to the last message: the kernel took all, or none
            data = netlink.recv(65536)
            _, kind, _, _, _ = _HEAD.unpack_from(data)
            code = struct.unpack_from("=i", data, _HEAD.size)[0]
            if kind == _NLMSG_ERROR and not code:
                return
    raise OSError(-code, f"nf_tables: {os.strerror(-code)}")


def _chain(address: bytes, port: int, ports: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    hook = _attribute(_HOOK_NUMBER, _be32(_LOCAL_OUT)) + _attribute(_HOOK_PRIORITY, struct.pack(">i", _PRIORITY))
    chain = _attribute(_CHAIN_TABLE, TABLE) + _attribute(_CHAIN_NAME, _CHAIN)
    chain += _attribute(_CHAIN_HOOK | _NESTED, hook) + _attribute(_CHAIN_TYPE, b"filter\0")
    yield _message(_NEW_CHAIN, _REQUEST | _CREATE, chain)
    rules = []
    for protocol, other in ports:
        rules.append(_rule(protocol, (_DESTINATION_ADDRESS, address), _DESTINATION_PORT, port, other))
        rules.append(_rule(protocol, (_SOURCE_ADDRESS, address), _SOURCE_PORT, other, port))
    for rule in rules[:-1]:
        yield _message(_NEW_RULE, _REQUEST | _CREATE | _APPEND, rule)
    yield _message(_NEW_RULE, _REQUEST | _CREATE | _APPEND | _ACK, rules[-1])


def _rule(protocol: int, where: tuple[int, bytes], port_offset: int, old: int, new: int) -> bytes:
    """With `where` (offset, address) and the port `old`: write the port `new`."""
    address_offset, address = where
    port = (_TRANSPORT, port_offset, 2)
    expressions = (
        _expression(b"meta", (1, _be32(_REGISTER)), (2, _be32(_L4_PROTOCOL))),
        _equal(bytes([protocol])),
        _load(_NETWORK, address_offset, 4),
        _equal(address),
        _load(*port),
        _equal(old.to_bytes(2, "big")),
        _expression(b"immediate", (1, _be32(_REGISTER)), (2 | _NESTED, _attribute(_VALUE, new.to_bytes(2, "big")))),
        _expression(
            b"payload",
            *((number, _be32(value)) for number, value in zip((2, 3, 4), port, strict=True)),
            (5, _be32(_REGISTER)),
            (6, _be32(_CHECKSUM)),
            (7, _be32(_CHECKSUM_OFFSETS[protocol])),
        ),
    )
    names = _attribute(_RULE_TABLE, TABLE) + _attribute(_RULE_CHAIN, _CHAIN)
    return names + _attribute(_RULE_EXPRESSIONS | _NESTED, b"".join(expressions))


def _load(base: int, offset: int, length: int) -> bytes:
    return _expression(b"payload", *enumerate(map(_be32, (_REGISTER, base, offset, length)), start=1))


def _equal(value: bytes) -> bytes:
    return _expression(b"cmp", (1, _be32(_REGISTER)), (2, _be32(0)), (3 | _NESTED, _attribute(_VALUE, value)))


def _expression(name: bytes, *attributes: tuple[int, bytes]) -> bytes:
    data = b"".join(_attribute(number, value) for number, value in attributes)
    inner = _attribute(_EXPRESSION_NAME, name + b"\0") + _attribute(_EXPRESSION_DATA | _NESTED, data)
    return _attribute(_ELEMENT | _NESTED, inner)


def _attribute(number: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)


def _be32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _message(kind: int, flags: int, attributes: bytes, *, family: int = socket.AF_INET, resource: int = 0) -> bytes:
    body = struct.pack(">BBH", family, 0, resource) + attributes
    return _HEAD.pack(_HEAD.size + len(body), kind, flags, 0, 0) + body
