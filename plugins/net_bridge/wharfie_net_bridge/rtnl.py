"""A connection to the kernel's rtnetlink(7) that sends several requests by one system call.

pyroute2's message classes encode and decode; the transport is our own because one batch is one system call, so that a
killed daemon has sent all of it or nothing, and because it needs no event loop in the worker threads that call drivers.
Opening one takes 20 microseconds: every operation has its own, in whatever namespace the thread is.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from types import TracebackType
from typing import Any, NamedTuple

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

# include/uapi/linux: netlink.h, rtnetlink.h
IFA_ADDRESS = 1
IFA_LOCAL = 2
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_DUMP = 0x300
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSGERR_ATTR_MSG = 1
RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_SETLINK = 19
RTM_NEWADDR = 20
RTM_GETADDR = 22
RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTEXT_FILTER_SKIP_STATS = 0x8
SOL_NETLINK = 270

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_IFADDRMSG = struct.Struct("=BBxxI")  # family, prefix length, interface (include/uapi/linux/if_addr.h)
_RECEIVE = 1 << 18
_PATIENCE = 8.0
"""Seconds for an answer of the kernel's: others may hold its lock for a while. Below the deadline of every call."""

Attributes = list[tuple[str, Any]]


class Request:
    """One message, encoded, that may be sent any number of times.

    `message`: an ifinfmsg, ifaddrmsg or rtmsg. `tolerate`: errors (errno) that mean that the wish is fulfilled already.
    """

    __slots__ = ("flags", "payload", "tolerate", "type")

    def __init__(self, type: int, flags: int, message: Any, tolerate: tuple[int, ...] = ()) -> None:
        self.type = type
        self.flags = flags
        self.payload = _payload(message)
        self.tolerate = tolerate


@dataclass(frozen=True, slots=True)
class Link:
    """An interface, as far as this driver looks at it."""

    index: int
    name: str
    kind: str
    alias: str
    peer: int  # of a veth: index of the other end, in that end's own namespace
    master: int  # index of the bridge that it is a port of; 0: none


class HostAddress(NamedTuple):
    """An address of an interface, as a number, for there may be many."""

    link: int  # index of its interface
    version: int
    number: int
    prefix_length: int

    def overlaps(self, subnet: IPv4Network | IPv6Network) -> bool:
        """Whether its own subnet and this one share addresses."""
        if self.version != subnet.version:
            return False
        differing = subnet.max_prefixlen - min(self.prefix_length, subnet.prefixlen)
        return self.number >> differing == int(subnet.network_address) >> differing

    @property
    def interface(self) -> IPv4Interface | IPv6Interface:
        kind = IPv4Interface if self.version == 4 else IPv6Interface
        return kind((self.number, self.prefix_length))


class Rtnl:
    """Belongs to the network namespace of the thread that makes it. Not to be shared by threads."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._socket.settimeout(_PATIENCE)
        self._sequence = 0

    def __enter__(self) -> Rtnl:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()

    def run(self, *requests: Request) -> None:
        """Send the requests by one system call. The kernel works on all of them, also after one that failed.

        Errors: OSError of the first that failed and was not tolerated, with the kernel's own words.
        """
        expected: dict[int, Request] = {}
        batch = bytearray()
        for request in requests:
            batch += self._encoded(request.type, request.flags | NLM_F_ACK, request.payload)
            expected[self._sequence] = request
        self._socket.send(batch)
        failure: OSError | None = None
        while expected:
            for type_, flags, sequence, body in self._received():
                known = expected.pop(sequence, None)
                if type_ == NLMSG_ERROR and known is not None:
                    error = _error(flags, body)
                    if error is not None and error.errno not in known.tolerate:
                        failure = failure or error
        if failure is not None:
            raise failure

    def link(self, name: str) -> Link | None:
        """The interface of that name; None: there is none."""
        message = ifinfmsg()
        message["attrs"] = [("IFLA_IFNAME", name), ("IFLA_EXT_MASK", RTEXT_FILTER_SKIP_STATS)]
        self._socket.send(self._encoded(RTM_GETLINK, 0, _payload(message)))
        for type_, flags, _, body in self._received():
            if type_ == RTM_NEWLINK:
                return _link(body)
            error = _error(flags, body)
            if error is not None and error.errno != errno.ENODEV:
                raise error
        return None

    def links(self) -> list[Link]:
        """All interfaces of this namespace."""
        message = ifinfmsg()
        message["attrs"] = [("IFLA_EXT_MASK", RTEXT_FILTER_SKIP_STATS)]
        return [_link(body) for body in self._dump(message, RTM_GETLINK)]

    def addresses(self) -> list[HostAddress]:
        """Every address of this namespace."""
        return [_address(body) for body in self._dump(ifaddrmsg(), RTM_GETADDR)]

    def _dump(self, message: Any, type_: int) -> list[bytes]:
        self._socket.send(self._encoded(type_, NLM_F_DUMP, _payload(message)))
        bodies: list[bytes] = []
        while True:
            for kind, flags, _, body in self._received():
                if kind == NLMSG_DONE:
                    return bodies
                if kind == NLMSG_ERROR:
                    raise _error(flags, body) or OSError(errno.EPROTO, "netlink dump ended early")
                bodies.append(body)

    def _encoded(self, type_: int, flags: int, payload: bytes) -> bytes:
        self._sequence += 1
        return _HEADER.pack(_HEADER.size + len(payload), type_, flags | NLM_F_REQUEST, self._sequence, 0) + payload

    def _received(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Type, flags, sequence and whole bytes of each message that came in one datagram."""
        data = self._socket.recv(_RECEIVE)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, type_, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            yield type_, flags, sequence, data[offset : offset + length]
            offset += (length + 3) & ~3


def link_message(
    *, name: str = "", index: int = 0, up: bool | None = None, attributes: Iterable[tuple[str, Any]] = ()
) -> Any:
    """An interface's message; addressed by `index`, or by `name` when that is 0."""
    message = ifinfmsg()
    message["index"] = index
    if up is not None:
        message["flags"], message["change"] = int(up), 1  # IFF_UP
    message["attrs"] = [("IFLA_IFNAME", name), *attributes] if name else list(attributes)
    return message


def new_link(message: Any) -> Request:
    """Make an interface; EEXIST when its name is taken."""
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, message)


def set_link(message: Any) -> Request:
    """Change an interface."""
    return Request(RTM_SETLINK, 0, message)


def set_port(name: str, *, isolated: bool, hairpin: bool) -> Request:
    """Change a bridge's port. `isolated`: it speaks to the bridge itself but to no other isolated port. `hairpin`: a
    packet may leave by the port that it came in by."""
    data = {"attrs": [("IFLA_BRPORT_ISOLATED", int(isolated)), ("IFLA_BRPORT_MODE", int(hairpin))]}
    info = {"attrs": [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", data)]}
    return Request(RTM_NEWLINK, 0, link_message(name=name, attributes=[("IFLA_LINKINFO", info)]))


def delete_link(name: str) -> Request:
    """Remove an interface; there may be none."""
    return Request(RTM_DELLINK, 0, link_message(name=name), (errno.ENODEV,))


def add_address(index: int, address: Any) -> Request:
    """Give an interface an address (an ip_interface); it may have it. IPv6: usable at once, since IPAM made sure that it
    is nobody else's (no duplicate address detection)."""
    message = ifaddrmsg()
    message["family"] = socket.AF_INET if address.version == 4 else socket.AF_INET6
    message["prefixlen"] = address.network.prefixlen
    message["index"] = index
    attributes: Attributes = [("IFA_LOCAL", str(address.ip)), ("IFA_ADDRESS", str(address.ip))]
    if address.version == 4 and address.network.prefixlen < 31:
        attributes.append(("IFA_BROADCAST", str(address.network.broadcast_address)))
    if address.version == 6:
        attributes.append(("IFA_FLAGS", 0x02))  # IFA_F_NODAD
    message["attrs"] = attributes
    return Request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, message, (errno.EEXIST,))


def default_route(index: int, gateway: Any) -> Request:
    """Make the way through `gateway` the namespace's default route, in place of another one."""
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, _route(index, gateway.version, str(gateway)))


def no_default_route(index: int, version: int) -> Request:
    """Remove the default route through an interface; there may be none."""
    return Request(RTM_DELROUTE, 0, _route(index, version, ""), (errno.ESRCH,))


def _route(index: int, version: int, gateway: str) -> Any:
    message = rtmsg()
    message["family"] = socket.AF_INET if version == 4 else socket.AF_INET6
    message["table"] = 254  # RT_TABLE_MAIN
    attributes: Attributes = [("RTA_OIF", index)]
    if gateway:
        message["proto"] = 3  # RTPROT_BOOT, as `ip route add`
        message["type"] = 1  # RTN_UNICAST
        attributes.append(("RTA_GATEWAY", gateway))
    else:
        message["scope"] = 255  # RT_SCOPE_NOWHERE: whatever its scope is
    message["attrs"] = attributes
    return message


def _payload(message: Any) -> bytes:
    """The message without netlink's own header. A pyroute2 message is encoded once: a second time breaks it."""
    message.encode()
    payload = bytes(message.data)[_HEADER.size :]
    return payload + bytes(-len(payload) % 4)


def _decoded(kind: Any, body: bytes) -> Any:
    message = kind(body)
    message.decode()
    return message


def _link(body: bytes) -> Link:
    message = _decoded(ifinfmsg, body)
    info = message.get_attr("IFLA_LINKINFO")
    return Link(
        index=int(message["index"]),
        name=str(message.get_attr("IFLA_IFNAME")),
        kind=str(info.get_attr("IFLA_INFO_KIND") or "") if info is not None else "",
        alias=str(message.get_attr("IFLA_IFALIAS") or ""),
        peer=int(message.get_attr("IFLA_LINK") or 0),
        master=int(message.get_attr("IFLA_MASTER") or 0),
    )


def _address(body: bytes) -> HostAddress:
    """Read by hand: a host of many networks has many, and all are looked at whenever one more is made."""
    family, length, index = _IFADDRMSG.unpack_from(body, _HEADER.size)
    number = b""
    offset = _HEADER.size + _IFADDRMSG.size
    while offset + _ATTRIBUTE.size <= len(body):
        size, type_ = _ATTRIBUTE.unpack_from(body, offset)
        if size < _ATTRIBUTE.size:
            break
        if type_ == IFA_LOCAL or (type_ == IFA_ADDRESS and not number):
            number = body[offset + _ATTRIBUTE.size : offset + size]
        offset += (size + 3) & ~3
    return HostAddress(index, 4 if family == socket.AF_INET else 6, int.from_bytes(number, "big"), length)


def _error(flags: int, body: bytes) -> OSError | None:
    """The error in an NLMSG_ERROR message; None: it is an acknowledgement."""
    (number,) = struct.unpack_from("=i", body, _HEADER.size)
    if number == 0:
        return None
    words = os.strerror(-number)
    if flags & NLM_F_ACK_TLVS:
        offset = _HEADER.size + 4 + _HEADER.size
        if not flags & NLM_F_CAPPED:
            offset += struct.unpack_from("=I", body, _HEADER.size + 4)[0] - _HEADER.size
        while offset + _ATTRIBUTE.size <= len(body):
            length, type_ = _ATTRIBUTE.unpack_from(body, offset)
            if length < _ATTRIBUTE.size:
                break
            if type_ == NLMSGERR_ATTR_MSG:
                words = f"{words}: {body[offset + 4 : offset + length].rstrip(bytes(1)).decode(errors='replace')}"
            offset += (length + 3) & ~3
    return OSError(-number, words)
