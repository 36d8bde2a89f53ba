"""Network namespaces of the kit: sandboxes as containers have them, looked into by the command `ip`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

from wharfie.kit.room import fork
from wharfie.kit.rules import NotTried
from wharfie.shim.netns import within
from wharfie.shim.system import CLONE_NEWNET, unshare


class Place:
    """A network namespace that a sleeping process holds, until `close` or the end of the room."""

    def __init__(self) -> None:
        ready, told = os.pipe()
        self.pid = fork()
        if self.pid == 0:
            unshare(CLONE_NEWNET)
            os.write(told, b"1")
            while True:
                signal.pause()
        os.read(ready, 1)
        os.close(ready)
        os.close(told)
        self.path = Path(f"/proc/{self.pid}/ns/net")
        self._served: set[int] = set()

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def ip(self, *words: str) -> Any:
        return within(self.path, lambda: ip(*words))

    def interfaces(self) -> set[str]:
        return {name for _, name in within(self.path, socket.if_nameindex)} - {"lo"}

    def default_routes(self) -> list[str]:
        """Gateways of the default routes, "" for one on link."""
        return [route.get("gateway", "") for route in self.ip("-4", "route", "show", "default")]

    def serve(self, port: int) -> None:
        """Answer every TCP connection to the port with "served"."""
        if port in self._served:
            return
        self._served.add(port)
        server = within(self.path, lambda: socket.create_server(("0.0.0.0", port)))

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with server.accept()[0] as connection:
                        connection.sendall(b"served")

        threading.Thread(target=answer, daemon=True).start()

    def reaches(self, address: str, port: int) -> bool:
        return within(self.path, lambda: reaches(address, port))


def reaches(address: str, port: int) -> bool:
    """Whether what `Place.serve` serves answers there, from the calling thread's namespace."""
    for _ in range(2):  # the first packet may wait for an address to be resolved
        try:
            with socket.create_connection((address, port), timeout=0.7) as connection:
                return connection.recv(16) == b"served"
        except OSError:
            continue
    return False


def ip(*words: str) -> Any:
    """What the command `ip -json` says."""
    try:
        done = subprocess.run(["ip", "-json", *words], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise NotTried("the command ip is missing; apt-get install iproute2") from None
    return json.loads(done.stdout) if done.stdout.strip() else []
