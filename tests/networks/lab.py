"""A host of the tests' own: a network namespace with a daemon in it, and machines around it.

    outside ── 10.213.1.0/24, fd12:213:1::/64 ── out1 ┐
                                                      │ host
    neighbour ─ 10.213.9.0/24, fd12:213:9::/64 ─ lan0 ┘

`outside` uses the host as its router, so it can send packets for any address there. The machine's own interfaces, routes
and firewall are not touched.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.harness import Daemon, import_busybox
from tests.networks.places import Place

OUT4, OUT6, LAN4, LAN6 = "10.213.1", "fd12:213:1:", "10.213.9", "fd12:213:9:"
SPARE = f"{OUT4}.50"
"""A second address of the host on the way to `outside`."""


class Lab:
    """The host, its daemon, the machines, the containers."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._tag = f"wl{os.getpid()}"
        self.places: dict[str, Place] = {}
        self.daemon: Daemon

    def machine(self, name: str) -> Place:
        namespace = f"{self._tag}{name}"
        subprocess.run(["ip", "netns", "add", namespace], check=True)
        place = self.places[name] = Place(name, Path("/run/netns", namespace))
        place.sh("ip link set lo up")
        return place

    def build(self) -> None:
        host, outside, neighbour = (self.machine(name) for name in ("host", "outside", "neighbour"))
        setting = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
        host.sh(f"test ! -e {setting} || echo 0 > {setting}")
        for machine, near, four, six in ((outside, "out1", OUT4, OUT6), (neighbour, "lan0", LAN4, LAN6)):
            host.sh(f"ip link add {near} type veth peer name eth0 netns {machine.path.name}; ip link set {near} up")
            machine.sh(f"ip addr add {four}.2/24 dev eth0; ip addr add {six}:2/64 dev eth0 nodad; ip link set eth0 up")
        host.sh(
            f"ip addr add {OUT4}.1/24 dev out1; ip addr add {SPARE}/24 dev out1; ip addr add {OUT6}:1/64 dev out1 nodad"
        )
        # Somebody has opened the door to 127.0.0.0/8 on the host's interface, and the machine beyond sends such packets.
        host.sh("echo 1 > /proc/sys/net/ipv4/conf/out1/route_localnet")
        outside.sh(f"ip route add default via {OUT4}.1; ip -6 route add default via {OUT6}:1")
        for interface in ("all", "eth0"):
            outside.sh(f"echo 1 > /proc/sys/net/ipv4/conf/{interface}/route_localnet")
        outside.sh(f"ip addr flush dev lo; ip route add 127.0.0.1/32 via {OUT4}.1 src {OUT4}.2")
        for machine in (outside, neighbour):
            for kind in ("tcp", "udp"):
                machine.serve(80, kind)
        self.daemon = self._daemon("one", {})
        self.daemon.start()
        import_busybox(self.daemon)

    def _daemon(self, name: str, config: dict[str, Any]) -> Daemon:
        return _Inside(self._root / name, self.places["host"].path, config=config)

    @contextlib.contextmanager
    def another(self, config: dict[str, Any]) -> Iterator[Daemon]:
        """One more daemon on the same host."""
        daemon = self._daemon("another", config)
        try:
            daemon.start()
            import_busybox(daemon)
            yield daemon
        finally:
            daemon.close()

    def container(self, daemon: Daemon, name: str, *words: str) -> Place:
        """A container that answers at ports 80 and 81."""
        daemon.docker("run", "-d", "--name", name, *words, "busybox", "sleep", "600")
        pid = daemon.inspect(name)["State"]["Pid"]
        place = self.places[name] = Place(name, Path(f"/proc/{pid}/ns/net"))
        for kind in ("tcp", "udp"):
            place.serve(80, kind)
            place.serve(81, kind)
        return place

    def containers(self, wanted: dict[str, str]) -> None:
        """All of these, by name and words, at once."""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda item: self.container(self.daemon, item[0], *item[1].split()), wanted.items()))

    def close(self) -> None:
        for place in self.places.values():
            place.close()
        if hasattr(self, "daemon"):
            self.daemon.close()
        for place in self.places.values():
            if place.path.parent == Path("/run/netns"):
                subprocess.run(["ip", "netns", "delete", place.path.name], check=False, capture_output=True)


class _Inside(Daemon):
    """A daemon in a namespace of the network."""

    def __init__(self, root: Path, namespace: Path, **options: Any) -> None:
        super().__init__(root, **options)
        self._namespace = namespace

    def command(self) -> list[str]:
        return ["nsenter", f"--net={self._namespace}", *super().command()]
