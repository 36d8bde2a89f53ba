"""Network namespaces that stand for machines, with somebody in them who asks and answers."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from ipaddress import ip_address
from pathlib import Path

from wharfie.shim.netns import within

LOST = 1.0
"""Seconds to wait for an answer that must not come."""
_TYPES = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class Place:
    """A namespace of a machine or of a container. What is asked of it is said by threads of the test."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self._servers: list[socket.socket] = []

    def sh(self, command: str) -> str:
        words = ["nsenter", f"--net={self.path}", "sh", "-ec", command]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def serve(self, port: int, kind: str) -> None:
        """Answer everyone at `port` of all addresses with this place's name and the caller's address."""
        server = within(self.path, lambda: socket.socket(socket.AF_INET6, _TYPES[kind]))
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("::", port))
        if kind == "tcp":
            server.listen(64)
        self._servers.append(server)
        threading.Thread(target=self._answer, args=(server, kind), daemon=True).start()

    def _answer(self, server: socket.socket, kind: str) -> None:
        with contextlib.suppress(OSError):
            while True:
                if kind == "udp":
                    _, peer = server.recvfrom(100)
                    if peer is None:  # shut down
                        return
                    server.sendto(self._words(peer[0]), peer)
                else:
                    connection, peer = server.accept()
                    with connection:
                        connection.sendall(self._words(peer[0]))

    def _words(self, caller: str) -> bytes:
        return f"{self.name} {caller.removeprefix('::ffff:')}".encode()

    def ask(self, address: str, port: int, kind: str, *, wait: float) -> str:
        """What answers: "name caller's-address"; empty when nobody does within `wait` seconds."""
        family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
        with within(self.path, lambda: socket.socket(family, _TYPES[kind])) as client:
            client.settimeout(wait)
            try:
                client.connect((address, port))
                if kind == "udp":
                    client.send(b"?")
                return client.recv(100).decode()
            except OSError:
                return ""

    def close(self) -> None:
        for server in self._servers:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
