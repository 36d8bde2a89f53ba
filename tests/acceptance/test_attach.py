"""Attaching: without stdin, by several clients at once, over a WebSocket."""

from __future__ import annotations

import base64
import os
import socket
import struct
import time

from tests.harness import until


def test_several_clients_see_the_same(daemon, name):
    script = "while ! test -e /go; do sleep .05; done; for i in 1 2 3; do echo line $i; done; exit 5"
    daemon.docker("run", "-d", "--name", name, "busybox", "sh", "-c", script)
    clients = [daemon.spawn_docker("attach", "--no-stdin", "--sig-proxy=false", name) for _ in range(4)]
    until(lambda: len(attach_events(daemon, name)) == 4, what="four clients")
    time.sleep(0.2)  # the event is told before the connection is handed over
    daemon.docker("exec", name, "touch", "/go")
    for client in clients:
        output, _ = client.communicate(timeout=30)
        assert (output, client.returncode) == (b"line 1\nline 2\nline 3\n", 5)


def attach_events(daemon, name):
    words = ("--since", "0", "--until", str(int(time.time()) + 1), "--filter", f"container={name}")
    return daemon.docker("events", *words, "--filter", "event=attach", "--format", "x").split()


class WebSocket:
    """A client of a few lines."""

    def __init__(self, daemon, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(str(daemon.socket))
        key = base64.b64encode(os.urandom(16)).decode()
        head = f"GET {path} HTTP/1.1\r\nHost: docker\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.socket.sendall(f"{head}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        self.stream = self.socket.makefile("rb")
        self.status = int(self.stream.readline().split()[1])
        while self.stream.readline().strip():
            pass

    def send(self, opcode, payload):
        mask = os.urandom(4)
        size = len(payload)
        length = struct.pack(">B", 0x80 | size) if size < 126 else struct.pack(">BH", 0x80 | 126, size)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        self.socket.sendall(bytes((0x80 | opcode,)) + length + mask + masked)

    def receive(self):
        opcode, size = self.stream.read(2)
        if size == 126:
            size = int.from_bytes(self.stream.read(2))
        elif size == 127:
            size = int.from_bytes(self.stream.read(8))
        return opcode & 0x0F, self.stream.read(size)

    def until(self, text):
        found = b""
        while text not in found:
            opcode, payload = self.receive()
            assert opcode == 2
            found += payload
        return found


def test_over_a_websocket(daemon, name):
    daemon.docker("run", "-dit", "--name", name, "busybox", "sh")
    client = WebSocket(daemon, f"/containers/{name}/attach/ws?stream=1&stdin=1&stdout=1&stderr=1")
    assert client.status == 101
    client.send(2, b"echo a$((20+22))b\n")
    client.until(b"a42b")
    client.send(9, b"ping")
    while (found := client.receive())[0] == 2:
        pass
    assert found == (10, b"ping")
    client.send(1, b"# " + b"x" * 3000 + b"\necho l''ong\n")
    client.until(b"long")
    client.send(2, b"exit\n")
    while (found := client.receive())[0] == 2:
        pass
    assert found == (8, struct.pack(">H", 1000))


def test_a_websocket_client_leaves(daemon, name):
    daemon.docker("run", "-dit", "--name", name, "busybox", "sh")
    client = WebSocket(daemon, f"/containers/{name}/attach/ws?stream=1&stdout=1")
    client.send(8, struct.pack(">H", 1000))
    assert client.receive()[0] == 8
    assert client.stream.read() == b""
    assert daemon.docker("exec", name, "echo", "alive") == "alive"


def test_no_websocket(daemon, name):
    daemon.docker("create", "--name", name, "busybox", "true")
    assert daemon.request("GET", f"/containers/{name}/attach/ws?stream=1")[0] == 400
    assert WebSocket(daemon, "/containers/nosuch/attach/ws").status == 404
