"""Values of the contracts across a process border."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Interface, IPv4Network, IPv6Address, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any, Literal

import pytest

from wharfie.plugins.contract import CONTRACTS, methods
from wharfie.plugins.remote.border import decode_event, encode_event, signatures
from wharfie.plugins.remote.codec import Cargo, Mismatch, codec
from wharfie.plugins.remote.frames import Broken, Channel, pack
from wharfie.spi.authz import ApiRequest
from wharfie.spi.driver import ContainerFacts, FileDescriptor, HostFacts, Problem
from wharfie.spi.errors import InvalidArgument
from wharfie.spi.ipam import Address, Interface, PoolLease
from wharfie.spi.log import LogEntry
from wharfie.spi.network import Attachment, Endpoint, Joined, Network, Pool, Port, Route, Sandbox
from wharfie.spi.runtime import ContainerState, Exit, Exited, Io, LogTarget, Mount, Preparation
from wharfie.spi.storage import Change, ChangeKind
from wharfie.spi.volume import VolumeCapability

ENDPOINT = Endpoint(
    id="e" * 64,
    network_id="1" * 64,
    container=ContainerFacts(id="c" * 64, name="web", command=("sh", "-c"), labels={"a": "b"}, folder=Path("/data/c")),
    interface="eth0",
    mac="",
    addresses=(ip_interface("10.0.0.2/24"), ip_interface("fd00::2/64")),
    default_route4=True,
)
VALUES: Sequence[tuple[Any, Any]] = [
    (str | None, None),
    (str | None, "x"),
    (Address | None, IPv6Address("fd00::1")),
    (Interface, IPv4Interface("10.0.0.2/24")),
    (Sequence[Problem], [Problem(what="a", fix="b", fatal=False)]),
    (Mapping[str, frozenset[str]], {"data": frozenset({"a", "b"})}),
    (tuple[str, str], ("local", "global")),
    (tuple[int, ...], (1, 2, 3)),
    (frozenset[VolumeCapability], frozenset(VolumeCapability)),
    (Mapping[str, Any], {"cpu": {"usage_ns": 1, "list": [1.5, None, True]}}),
    (Literal["stdout", "stderr"], "stderr"),
    (HostFacts, HostFacts(kernel=(6, 1), architecture="amd64", cgroup="v2", cpus=2, memory=1 << 40)),
    (Sequence[Change], [Change(kind=ChangeKind.DELETED, path="/a")]),
    (LogEntry, LogEntry(stream="stdout", data=b"\x00\xff\n", time_ns=1 << 62, attributes={})),
    (Path, Path(os.fsdecode(b"/odd\xff name"))),
    (PoolLease, PoolLease(id="p", subnet=ip_network("10.0.0.0/24"), addresses=(ip_address("10.0.0.1"),))),
    (Io, Io(terminal=True, size=(24, 80), log=LogTarget(sink="a:B", options={"x": "y"}))),
    (Preparation, Preparation(user="1:1", files=("/dev/shm/",), resolver=Path("/x"))),
    (tuple[Mount, ...], (Mount(type="overlay", source="overlay", options=("ro",)),)),
    (ContainerState, ContainerState(id="c", status="stopped", pid=0, exit=Exit(code=1, at_ns=5))),
    (ApiRequest, ApiRequest(user="u", authentication="TLS", method="POST", path="/x", body={"a": [1]}, raw_body=b"{}")),
    (
        Network,
        Network(id="1", name="n", pools=(Pool(subnet=IPv4Network("10.0.0.0/24"), gateway=ip_address("10.0.0.1")),)),
    ),
    (
        Joined,
        Joined(
            endpoint=ENDPOINT,
            sandbox=Sandbox(id="s", path=Path("/proc/1/ns/net")),
            attachment=Attachment(
                interface="eth0",
                mac="02:00:00:00:00:01",
                routes=(Route(destination=ip_network("10.1.0.0/16"), via=ip_address("10.0.0.9")),),
                data={"veth": "v1"},
            ),
            ports=(Port(protocol="tcp", container_port=80, host_address=ip_address("::"), host_port=8080),),
        ),
    ),
]


@pytest.mark.parametrize(("hint", "value"), VALUES)
def test_values_come_back_as_they_were(hint, value):
    one = codec(hint)
    there = json.loads(json.dumps(one.encode(value, Cargo())))
    back = one.decode(there, Cargo())
    assert back == value and type(back) is type(value)


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS)
def test_every_method_of_every_contract_can_cross(contract):
    assert signatures(contract).keys() == methods(contract).keys()


@pytest.mark.parametrize(
    ("hint", "value", "text"),
    [
        (Path, "/a", "expected PurePath, not str"),
        (int, True, "expected int, not bool"),
        (str, 5, "expected str, not int"),
        (Sequence[str], "abc", "expected Sequence, not str"),
        (Sequence[str], (x for x in "ab"), "expected Sequence, not generator"),
        (tuple[str, str], ("a",), "expected 2 items"),
        (Mapping[str, str], {"a": 5}, "a: expected str, not int"),
        (Mapping[str, str], {5: "a"}, "expected str, not int"),
        (Address, ip_interface("10.0.0.1/8"), "IPv4Interface"),
        (Literal["a"], "b", "expected one of 'a', not 'b'"),
        (Endpoint | None, Endpoint, "expected Endpoint"),
        (VolumeCapability, "usage", "expected VolumeCapability, not str"),
        (Problem, Problem(what=5, fix=""), "what: expected str, not int"),
    ],
)
def test_what_is_not_what_its_hint_says_is_named(hint, value, text):
    with pytest.raises(Mismatch, match=text):
        codec(hint).encode(value, Cargo())


def test_a_field_of_a_newer_version_is_passed_over_and_a_missing_one_has_its_default():
    one = codec(Problem)
    assert one.decode({"what": "a", "fix": "b", "severity": 5}, Cargo()) == Problem(what="a", fix="b")
    with pytest.raises(Mismatch, match="Problem lacks fix"):
        one.decode({"what": "a"}, Cargo())


def test_events_are_those_of_the_contracts():
    event = Exited(id="c", exit=Exit(code=3, at_ns=5, out_of_memory=True))
    assert decode_event(json.loads(json.dumps(encode_event(event)))) == event

    class Own(Exited):
        pass

    with pytest.raises(TypeError, match="not Own"):
        encode_event(Own(id="c", exit=event.exit))


def test_descriptors_travel_with_their_own_message():
    left, right = (Channel(one) for one in socket.socketpair())
    pipes = [os.pipe() for _ in range(3)]
    try:
        for number, (_, out) in enumerate(pipes):
            cargo = Cargo()
            place = codec(FileDescriptor).encode(out, cargo)
            large = pack({"number": number, "out": place, "descriptors": 1, "size": "x" * 300_000})
            sender = threading.Thread(target=left.send, args=(large, cargo.descriptors))
            sender.start()  # more than a socket holds
            got = []
            while not got:
                got += right.receive()
            sender.join()
            left.send(pack({"none": number}))
            got += right.receive()
            (first, descriptors), (second, nothing) = got
            assert (first["number"], second, nothing) == (number, {"none": number}, [])
            received = Cargo(descriptors).take(first["out"])
            os.write(received, b"%d" % number)
            os.close(received)
            assert os.read(pipes[number][0], 10) == b"%d" % number
        with pytest.raises(Mismatch, match="no descriptor 1"):
            Cargo([5]).take(1)
    finally:
        for pair in pipes:
            for one in pair:
                os.close(one)
        left.close()
    with pytest.raises(Broken):
        right.receive()
    right.close()


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\0\0\0\x02[]", b"\0\0\0\x05{nope", b'\0\0\0\x11{"descriptors":1}'])
def test_what_is_no_message_breaks_the_connection(data):
    left, right = socket.socketpair()
    channel = Channel(right)
    with left:
        left.sendall(data)
        with pytest.raises(Broken):
            channel.receive()
    channel.close()


def test_what_is_no_json_is_refused_before_it_is_sent():
    with pytest.raises(InvalidArgument, match="cannot be sent"):
        pack({"status": object()})


def test_a_client_socket_arrives_as_one():
    one, other = socket.socketpair()
    with one, other:
        cargo = Cargo()
        place = codec(socket.socket).encode(one, cargo)
        with codec(socket.socket).decode(place, cargo) as copy:
            copy.sendall(b"hello")
        assert other.recv(10) == b"hello" and one.fileno() >= 0
