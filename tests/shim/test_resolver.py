"""The name server, asked with real sockets from within a container's network namespace."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import House

from wharfie.shim import dns_wire, resolver
from wharfie.shim.system import CLONE_NEWNET, setns
from wharfie.spi.runtime import Exited, Preparation

UPSTREAM = "127.0.53.11"
SILENT = "127.0.53.12"


def question(name: str, kind: int, id: int = 4711) -> bytes:
    head = struct.pack(">HHHHHH", id, 0x0100, 1, 0, 0, 0)
    return head + dns_wire.write_name(name) + struct.pack(">HH", kind, dns_wire.IN)


def parse(data: bytes) -> tuple[int, int, list[tuple[int, int, bytes]]]:
    """Id, response code, and (type, TTL, data) of each answer."""
    number, flags, questions, answers, _, _ = struct.unpack_from(">HHHHHH", data)
    assert flags & 0x8000
    assert questions == 1
    at = 12
    while data[at]:
        at += 1 + data[at]
    at += 5
    records = []
    for _ in range(answers):
        assert data[at : at + 2] == b"\xc0\x0c"
        kind, _, ttl, length = struct.unpack_from(">HHIH", data, at + 2)
        records.append((kind, ttl, data[at + 12 : at + 12 + length]))
        at += 12 + length
    return number, flags & 15, records


@contextmanager
def inside(pid: int) -> Iterator[None]:
    """This thread in the network namespace of `pid`."""
    here, there = (os.open(f"/proc/{who}/ns/net", os.O_RDONLY) for who in ("thread-self", pid))
    setns(there, CLONE_NEWNET)
    try:
        yield
    finally:
        setns(here, CLONE_NEWNET)
        os.close(here)
        os.close(there)


class Asker:
    """Asks the name server of a container."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def udp(self, data: bytes, seconds: float = 10) -> bytes:
        with inside(self.pid):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sock:
            sock.settimeout(seconds)
            sock.sendto(data, ("127.0.0.11", 53))
            return sock.recv(65535)

    def tcp(self, *messages: bytes) -> list[bytes]:
        with inside(self.pid):
            sock = socket.create_connection(("127.0.0.11", 53), 10)
        with sock, sock.makefile("rb") as stream:
            sock.sendall(b"".join(struct.pack(">H", len(message)) + message for message in messages))
            return [stream.read(int.from_bytes(stream.read(2), "big")) for _ in messages]

    def ask(self, name: str, kind: int) -> tuple[int, list[bytes]]:
        number, code, records = parse(self.udp(question(name, kind)))
        assert number == 4711
        assert all(record[:2] == (kind, 600) for record in records)
        return code, [data for _, _, data in records]


class Upstream:
    """A server that answers every A question with 192.0.2.1, by UDP (cut for `big.example`) and TCP."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((UPSTREAM, 53))
        self.tcp = socket.create_server((UPSTREAM, 53))
        self.silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.silent.bind((SILENT, 53))
        self.threads = [threading.Thread(target=serve) for serve in (self._serve_udp, self._serve_tcp)]
        for thread in self.threads:
            thread.start()

    def _answer(self, data: bytes, records: int) -> bytes:
        query = dns_wire.parse(data)
        self.asked.append(query.name)
        return dns_wire.answer(query, dns_wire.NOERROR, [bytes([192, 0, 2, n + 1]) for n in range(records)], size=500)

    def _serve_udp(self) -> None:
        while True:
            data, address = self.udp.recvfrom(4096)
            if data == b"end":
                return
            self.udp.sendto(self._answer(data, 100 if b"big" in data else 1), address)

    def _serve_tcp(self) -> None:
        while True:
            connection, _ = self.tcp.accept()
            with connection:
                data = connection.recv(4096)
                if not data:
                    return
                message = self._answer(data[2:], 2)
                connection.sendall(struct.pack(">H", len(message)) + message[:5])
                connection.sendall(message[5:])

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"end", (UPSTREAM, 53))
        socket.create_connection((UPSTREAM, 53)).close()
        for thread in self.threads:
            thread.join()
        for sock in (self.udp, self.tcp, self.silent):
            sock.close()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


class Tables:
    def __init__(self, base: Path) -> None:
        self.own, self.net = base / "own.json", base / "net.json"
        self.configure()
        self.names(web=["10.211.0.2", "fd00::2"], many=[f"10.211.1.{n}" for n in range(60)], alias=["10.211.0.2"])

    def configure(self, **wanted: object) -> None:
        self._replace(self.own, {"networks": [str(self.net)], "servers": [], "search": [], "forward": True, **wanted})

    def names(self, **names: list[str]) -> None:
        self._replace(self.net, {"names": names})

    def _replace(self, path: Path, content: object) -> None:
        new = path.with_suffix(".new")
        new.write_text(json.dumps(content))
        new.rename(path)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path)


@pytest.fixture
def asker(house: House, tables: Tables) -> Asker:
    process = house.create("one", "exec sleep 100", preparation=Preparation(resolver=tables.own))
    house.driver.start("one")
    return Asker(process.pid)


def pack(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def test_known_names(asker: Asker) -> None:
    assert asker.ask("web", dns_wire.A) == (0, [pack("10.211.0.2")])
    assert asker.ask("WEB", dns_wire.AAAA) == (0, [pack("fd00::2")])
    assert asker.ask("alias", dns_wire.AAAA) == (0, [])
    assert asker.ask("web", 15) == (0, [])


def test_addresses_to_names(asker: Asker) -> None:
    assert asker.ask("2.0.211.10.in-addr.arpa", dns_wire.PTR) == (0, [b"\3web\0"])
    reverse = ".".join(reversed(pack("fd00::2").hex())) + ".ip6.arpa"
    assert asker.ask(reverse, dns_wire.PTR) == (0, [b"\3web\0"])


def test_changed_tables_are_seen(asker: Asker, tables: Tables) -> None:
    tables.names(db=["10.211.0.9"])
    assert asker.ask("db", dns_wire.A) == (0, [pack("10.211.0.9")])
    assert asker.ask("web", dns_wire.A) == (dns_wire.SERVFAIL, [])
    tables.net.write_text("{ not json")
    assert asker.ask("db", dns_wire.A) == (0, [pack("10.211.0.9")])
    tables.net.unlink()
    assert asker.ask("db", dns_wire.A) == (dns_wire.SERVFAIL, [])


def test_many_addresses_are_cut_by_udp_and_whole_by_tcp(asker: Asker) -> None:
    short = asker.udp(question("many", dns_wire.A))
    assert len(short) <= 512
    assert short[2] & 2
    (whole,) = asker.tcp(question("many", dns_wire.A))
    assert len(parse(whole)[2]) == 60
    assert {data for _, _, data in parse(whole)[2]} == {pack(f"10.211.1.{n}") for n in range(60)}
    edns = (
        question("many", dns_wire.A)[:11]
        + b"\1"
        + question("many", dns_wire.A)[12:]
        + b"\0"
        + struct.pack(">HHIH", 41, 1232, 0, 0)
    )
    assert len(parse(asker.udp(edns))[2]) == 60


def test_addresses_take_turns(asker: Asker) -> None:
    assert len({asker.ask("many", dns_wire.A)[1][0] for _ in range(20)}) > 3


def test_several_questions_on_one_connection(asker: Asker) -> None:
    answers = asker.tcp(question("web", dns_wire.A, 1), question("alias", dns_wire.A, 2))
    assert [parse(answer)[0] for answer in answers] == [1, 2]


def test_other_names_are_asked_of_the_hosts_servers(asker: Asker, tables: Tables, upstream: Upstream) -> None:
    tables.configure(servers=[UPSTREAM])
    assert asker.ask("example.org", dns_wire.A) == (0, [bytes([192, 0, 2, 1])])
    assert asker.udp(question("big.example", dns_wire.A))[2] & 2
    (answer,) = asker.tcp(question("big.example", dns_wire.A))
    assert len(parse(answer)[2]) == 2
    assert asker.ask("web", dns_wire.A)[0] == asker.ask("alias", dns_wire.AAAA)[0] == 0
    assert upstream.asked == ["example.org", "big.example", "big.example"]


def test_a_silent_server_and_a_closed_one_are_passed_over(asker: Asker, tables: Tables, upstream: Upstream) -> None:
    tables.configure(servers=["nonsense", "127.0.53.99", SILENT, UPSTREAM][1:])
    assert asker.ask("example.org", dns_wire.A) == (0, [bytes([192, 0, 2, 1])])
    tables.configure(servers=["nonsense"])
    assert asker.ask("example.org", dns_wire.A) == (dns_wire.SERVFAIL, [])


def test_an_answer_is_kept_as_long_as_it_says(asker: Asker, tables: Tables, upstream: Upstream) -> None:
    tables.configure(servers=[UPSTREAM])
    first = asker.udp(question("example.org", dns_wire.A, 1))
    second = asker.udp(question("example.org", dns_wire.A, 2))
    assert parse(first)[0] == 1
    assert parse(second)[0] == 2
    assert parse(first)[2][0][2] == parse(second)[2][0][2]
    assert upstream.asked == ["example.org"]
    asker.udp(question("big.example", dns_wire.A))
    asker.udp(question("big.example", dns_wire.A))
    assert upstream.asked.count("big.example") == 2, "what was cut is not kept"


def test_internal_networks_ask_nobody(asker: Asker, tables: Tables, upstream: Upstream) -> None:
    tables.configure(servers=[UPSTREAM], forward=False)
    assert asker.ask("example.org", dns_wire.A) == (dns_wire.SERVFAIL, [])
    assert upstream.asked == []


def test_nonsense_is_refused(asker: Asker) -> None:
    assert asker.udp(b"\x12\x34" + bytes(10))[:4] == b"\x12\x34\x80\x01"
    assert asker.udp(question("web", dns_wire.A)[:-6])[3] & 15 == dns_wire.FORMERR
    strange = bytearray(question("web", dns_wire.A))
    strange[2] |= 0x28
    assert asker.udp(bytes(strange))[3] & 15 == dns_wire.NOTIMP
    for data in (b"", b"\0", b"\xff" * 600, question("web", 1) + bytes(300)):
        with pytest.raises(TimeoutError):
            asker.udp(data, 0.05) and asker.udp(b"\1", 0.05)
    assert asker.ask("web", dns_wire.A)[0] == 0


def test_the_program_itself_resolves(house: House, tables: Tables) -> None:
    (house.root / "etc/resolv.conf").write_text("nameserver 127.0.0.11\n")
    house.create("one", "nslookup web && nslookup web >/tmp/found", preparation=Preparation(resolver=tables.own))
    house.driver.start("one")
    assert house.exit("one").code == 0
    assert "10.211.0.2" in (house.root / "tmp/found").read_text()


def test_names_are_answered_while_the_daemon_is_away(house: House, asker: Asker, tables: Tables) -> None:
    house.driver.close()
    tables.names(db=["10.211.0.9"])
    assert asker.ask("db", dns_wire.A) == (0, [pack("10.211.0.9")])
    house.open()


def test_the_namespace_goes_with_the_container(house: House, asker: Asker) -> None:
    namespace = Path(f"/proc/{asker.pid}/ns/net").readlink()
    house.driver.signal("one", 9)
    house.event(Exited)
    shim = house.shim_pid("one")
    assert Path(f"/proc/{shim}/ns/net").readlink() != namespace
    inodes = {str(entry.readlink()) for entry in Path(f"/proc/{shim}/fd").iterdir()}
    assert not any("net:[" in inode for inode in inodes)
    with open(f"/proc/{shim}/net/udp") as table:
        assert "0B00007F:" not in table.read()


def test_port_53_is_the_containers_own(house: House, tables: Tables) -> None:
    process = house.create("one", "exec sleep 100", preparation=Preparation(resolver=tables.own))
    house.driver.start("one")
    with inside(process.pid):
        udp, tcp = (socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM))
    with udp, tcp:
        udp.bind(("0.0.0.0", 53))
        tcp.bind(("0.0.0.0", 53))
        tcp.listen()
        asker = Asker(process.pid)
        assert asker.ask("web", dns_wire.A) == (0, [pack("10.211.0.2")])
        assert len(asker.tcp(question("web", dns_wire.A))) == 1
        tcp.settimeout(0)
        with pytest.raises(BlockingIOError):
            tcp.accept()


def test_a_shared_namespace_is_served_once(house: House, tables: Tables) -> None:
    process = house.create("one", "exec sleep 100", preparation=Preparation(resolver=tables.own))
    house.driver.start("one")
    assert resolver.open_sockets(f"/proc/{process.pid}/ns/net") == []
    assert Asker(process.pid).ask("web", dns_wire.A)[0] == 0


def test_who_serves_next_takes_over(house: House, tables: Tables) -> None:
    """What was led to the last one's ports is led to the new one's."""
    process = house.create("one", "exec sleep 100")
    house.driver.start("one")
    for _ in range(2):
        sockets = resolver.open_sockets(f"/proc/{process.pid}/ns/net")
        assert len(sockets) == 3
        with inside(process.pid):
            asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with socket.socket(fileno=sockets[0]) as served, asking:
            asking.sendto(b"hello", ("127.0.0.11", 53))
            served.settimeout(10)
            assert served.recv(16) == b"hello"
        for fd in sockets[1:]:
            os.close(fd)


def test_without_a_network_namespace_nobody_serves(house: House, tables: Tables) -> None:
    house.create("one", "exec sleep 100", namespaces=("pid",), preparation=Preparation(resolver=tables.own))
    with open("/proc/self/net/udp") as table:
        assert "0B00007F:" not in table.read()
