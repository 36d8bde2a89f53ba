"""The proxy process by itself: what it relays, how it ends, who may take it over."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import until
from wharfie.proxy.launch import Place, Proxy, Target

OWNER = "c" * 64


@pytest.fixture
def proxy(tmp_path) -> Iterator[Proxy]:
    proxy = Proxy(tmp_path)
    yield proxy
    proxy.quit()


@pytest.fixture
def life() -> Iterator[int]:
    """A process that stands for a container's; its pidfd."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        fd = os.pidfd_open(process.pid)
        try:
            yield fd
        finally:
            os.close(fd)
            process.kill()


def bound(kind: int = socket.SOCK_STREAM, address: str = "127.0.0.1") -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    made.bind((address, 0))
    return made


def port_of(one: socket.socket) -> int:
    return int(one.getsockname()[1])


def place_of(one: socket.socket) -> Place:
    protocol = "tcp" if one.type == socket.SOCK_STREAM else "udp"
    return Place(protocol, one.getsockname()[0], port_of(one))


def relay(proxy: Proxy, life: int, outside: socket.socket, inside: socket.socket) -> int:
    """Have `outside` relayed to `inside`; the port to call."""
    target = Target(inside.getsockname()[0], port_of(inside))
    proxy.put(OWNER, {place_of(outside): (outside, target)}, life)
    return port_of(outside)


def call(port: int, address: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((address, port), 20)


@contextlib.contextmanager
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(20)
        yield made


def test_bytes_both_ways_and_each_end_by_itself(proxy, life):
    with server() as inside, bound() as outside, call(relay(proxy, life, outside, inside)) as client:
        container, _ = inside.accept()
        with container:
            sent = os.urandom(5_000_000)

            def answer() -> None:
                received = bytearray()
                while data := container.recv(65536):
                    received += data
                assert bytes(received) == sent
                container.sendall(b"after your end " + sent)
                container.shutdown(socket.SHUT_WR)

            thread = threading.Thread(target=answer)
            thread.start()
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            with client.makefile("rb") as answers:
                assert answers.read() == b"after your end " + sent
            thread.join()


def test_who_does_not_read_is_waited_for(proxy, life):
    """A sender is held up by a receiver that does not read, and the proxy keeps no more than a little."""
    with server() as inside, bound() as outside:
        inside.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client = call(relay(proxy, life, outside, inside))
        container, _ = inside.accept()
        with client, container:
            client.setblocking(False)
            block, taken, still = b"x" * 65536, 0, 0

            def held_up() -> bool:
                nonlocal taken, still
                before = taken
                with contextlib.suppress(BlockingIOError):
                    while True:
                        taken += client.send(block)
                still = still + 1 if taken == before else 0
                return still == 10

            until(held_up, 20, "the sender is held up")
            assert _memory(proxy.pid) < 20_000_000
            client.close()
            received = 0
            container.settimeout(20)
            while data := container.recv(1 << 20):
                received += len(data)
            assert received == taken


def _memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_a_reset_is_passed_on(proxy, life):
    with server() as inside, bound() as outside, call(relay(proxy, life, outside, inside)) as client:
        container, _ = inside.accept()
        container.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        container.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_nobody_listens_in_the_container(proxy, life):
    with server() as inside, bound() as outside:
        port = relay(proxy, life, outside, inside)
        inside.close()
        with call(port) as client, pytest.raises(ConnectionResetError):
            client.recv(1)


def test_many_connections_by_one_thread(proxy, life):
    with server() as inside, bound() as outside, contextlib.ExitStack() as stack:
        port = relay(proxy, life, outside, inside)
        pairs = []
        for number in range(200):
            client = stack.enter_context(call(port))
            container = stack.enter_context(inside.accept()[0])
            pairs.append((number, client, container))
        for number, client, container in reversed(pairs):
            client.sendall(str(number).encode())
            assert container.recv(10) == str(number).encode()
        assert len(list(Path(f"/proc/{proxy.pid}/task").iterdir())) == 1


def _kernel_has_sctp() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _kernel_has_sctp(), reason="this kernel has no SCTP")
def test_sctp(proxy, life):
    def made() -> socket.socket:
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
        one.settimeout(20)
        one.bind(("127.0.0.1", 0))
        return one

    with made() as inside, made() as outside, made() as client:
        inside.listen()
        place = Place("sctp", "127.0.0.1", port_of(outside))
        proxy.put(OWNER, {place: (outside, Target("127.0.0.1", port_of(inside)))}, life)
        client.connect(("127.0.0.1", port_of(outside)))
        container, _ = inside.accept()
        with container:
            client.sendall(b"question")
            assert container.recv(100) == b"question"
            container.sendall(b"answer")
            assert client.recv(100) == b"answer"
            client.close()
            assert container.recv(100) == b"", "the end is passed on"


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::"])
def test_datagrams_of_several_clients(proxy, life, address):
    with bound(socket.SOCK_DGRAM) as inside, bound(socket.SOCK_DGRAM, address) as outside:
        port = relay(proxy, life, outside, inside)
        inside.settimeout(20)
        clients = []
        # An answer must come from the address that was asked, or a connected socket does not take it.
        for own in ("::1",) if address == "::" else ("127.0.0.1", "127.0.0.2") if address == "0.0.0.0" else ("127.0.0.1",):
            for _ in range(2):
                client = socket.socket(socket.AF_INET6 if ":" in own else socket.AF_INET, socket.SOCK_DGRAM)
                client.settimeout(20)
                client.connect((own, port))
                clients.append(client)
        for _ in range(2):
            for number, client in enumerate(clients):
                client.send(b"%d" % number)
                data, peer = inside.recvfrom(100)
                inside.sendto(b"answer to " + data, peer)
                assert client.recv(100) == b"answer to %d" % number
        for client in clients:
            client.close()


def test_a_port_is_free_when_it_was_given_up(proxy, life):
    with server() as inside, bound() as outside, call(relay(proxy, life, outside, inside)) as client:
        port = port_of(outside)
        container, _ = inside.accept()
        outside.close()
        proxy.drop(OWNER)
        assert _ended(client)
        container.close()
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", port))


def _ended(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_new_connections_follow_the_target(proxy, life):
    with server() as first, server() as second, bound() as outside:
        port = relay(proxy, life, outside, first)
        relay(proxy, life, outside, second)
        with call(port):
            second.accept()[0].close()


@pytest.mark.parametrize("depth", [0, 200])
def test_it_outlives_the_daemon_and_is_found_by_the_next(tmp_path, life, depth):
    tmp_path /= "d" * depth  # the address of a socket has 108 bytes, a folder's path has more
    tmp_path.mkdir(exist_ok=True)
    last, following = Proxy(tmp_path), Proxy(tmp_path)
    with server() as inside, bound() as outside:
        port, place = relay(last, life, outside, inside), place_of(outside)
        outside.close()
        last.close()  # as the end of the daemon does
        with call(port):
            inside.accept()[0].close()
        held = following.inherit()
        try:
            assert {owner: list(places) for owner, places in held.items()} == {OWNER: [place]}
            assert held[OWNER][place].getsockname() == ("127.0.0.1", port)
            held[OWNER][place].close()
            following.drop(OWNER)
            with pytest.raises(ConnectionRefusedError):
                call(port)
        finally:
            pid = following.pid
            following.quit()
        until(lambda: not _alive(pid), 20, "the process has ended")


def test_it_ends_with_the_last_container_when_no_daemon_is_there(tmp_path, life):
    proxy = Proxy(tmp_path)
    with server() as inside, bound() as outside:
        port = relay(proxy, life, outside, inside)
        pid = proxy.pid
        outside.close()
        proxy.close()
        call(port).close()
        signal.pidfd_send_signal(life, signal.SIGKILL)
        until(lambda: not _alive(pid), 20, "the process has ended")
        with pytest.raises(ConnectionRefusedError):
            call(port)


def test_without_a_proxy_there_is_nothing_to_inherit(tmp_path):
    proxy = Proxy(tmp_path)
    assert proxy.inherit() == {}
    proxy.drop(OWNER)
    assert proxy.pid == 0, "giving up what is not held starts nothing"


def _alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
