"""`make bench`, third part: 200 networks and 500 endpoints, by our engine beside dockerd, and what a request to a
published port costs with one of them and with a thousand.

Times of the first and of the last tenth of each series stand side by side: what they differ by is the price of the others.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

from bench import IMAGE, OURS, THEIRS, BenchFailed, Contender, Figure, console, contenders, report

from wharfie.client.client import Client
from wharfie.client.errors import ClientError

NETWORKS, ENDPOINTS, PORTS = 200, 500, 1000
CONTAINERS = 25
CONNECTIONS = 300
FIRST_PORT = 21000

_SERIES = {
    "create": f"{NETWORKS} networks made",
    "connect": f"{ENDPOINTS} endpoints joined",
    "inspect": "networks inspected",
    "disconnect": "endpoints left",
    "remove": "networks removed",
}
FIGURES: Sequence[Figure] = (
    *(
        Figure(f"{key}_{part}", f"{name}, {part} tenth", "ms")
        for key, name in _SERIES.items()
        for part in ("first", "last")
    ),
    Figure("one_port", "a request, 1 port published", "ms"),
    Figure("many_ports", f"a request, {PORTS} ports published", "ms"),
)

_CONNECT = """
import socket, sys, time
for _ in range(int(sys.argv[2])):
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        while connection.recv(4096):
            pass
    print(time.perf_counter() - began)
"""


def series(engine: Contender, key: str, acts: Sequence[Callable[[], object]]) -> None:
    """Do all, and keep the medians of both ends."""
    times = []
    for act in acts:
        began = time.perf_counter()
        act()
        times.append((time.perf_counter() - began) * 1000)
    tenth = max(1, len(times) // 10)
    engine.add(f"{key}_first", statistics.median(times[:tenth]))
    engine.add(f"{key}_last", statistics.median(times[-tenth:]))


def many_networks(engine: Contender, networks: int, endpoints: int) -> None:
    """Make, join, look, leave, remove."""
    with contextlib.closing(Client(engine.host)) as client:

        def make(number: int) -> None:
            pools = [{"Subnet": f"10.{100 + number // 250}.{number % 250}.0/24"}]
            client.post("/networks/create", {"Name": f"bench-{number}", "IPAM": {"Config": pools}})

        def move(verb: str, box: str, number: int) -> None:
            client.post(f"/networks/bench-{number}/{verb}", {"Container": box})

        names = [f"/networks/bench-{number}" for number in range(networks)]
        series(engine, "create", [partial(make, number) for number in range(networks)])
        boxes = [_started(client, {"NetworkMode": f"bench-{n}"}) for n in range(min(CONTAINERS, networks))]
        pairs = [
            (boxes[index % len(boxes)], (index % len(boxes) + index // len(boxes) + 1) % networks)
            for index in range(endpoints)
        ]
        series(engine, "connect", [partial(move, "connect", *pair) for pair in pairs])
        series(engine, "inspect", [partial(client.get, name) for name in names])
        series(engine, "disconnect", [partial(move, "disconnect", *pair) for pair in pairs])
        for box in boxes:
            client.delete(f"/containers/{box}", {"force": True})
        series(engine, "remove", [partial(client.delete, name) for name in names])


def many_ports(engine: Contender, ports: int) -> None:
    """Requests from the host's own loopback, alone and beside many."""
    assert engine.process is not None
    with contextlib.closing(Client(engine.host)) as client:
        served = _started(client, {"PortBindings": _bindings(80, FIRST_PORT, 1)})
        engine.add("one_port", _connections(engine))
        others = _started(client, {"PortBindings": _bindings(1000, FIRST_PORT + 1, ports - 1)})
        engine.add("many_ports", _connections(engine))
        for box in (served, others):
            client.delete(f"/containers/{box}", {"force": True})


def _bindings(inside: int, outside: int, count: int) -> dict[str, object]:
    return {
        f"{inside + number}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(outside + number)}] for number in range(count)
    }


def _started(client: Client, host: dict[str, object]) -> str:
    command = ["busybox", "httpd", "-f", "-p", "80"]
    made: str = client.post("/containers/create", {"Image": IMAGE, "Cmd": command, "HostConfig": host})["Id"]
    client.post(f"/containers/{made}/start")
    return made


def _connections(engine: Contender) -> float:
    """The median of many, in milliseconds, from the engine's own network namespace."""
    assert engine.process is not None
    place = ["nsenter", "--net", "--target", str(engine.process.pid)]
    words = [*place, sys.executable, "-c", _CONNECT, str(FIRST_PORT), str(CONNECTIONS)]
    for _ in range(20):  # the server in the container may need a moment
        result = subprocess.run(words, capture_output=True, text=True, check=False)
        if result.returncode == 0:
            return statistics.median(map(float, result.stdout.split())) * 1000
        time.sleep(0.1)
    raise BenchFailed(f"{engine.name}: port {FIRST_PORT} is not reached: {result.stderr[-300:]}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Networks: our engine beside dockerd, if one is installed.")
    parser.add_argument("--rounds", type=int, default=1, help="samples of each figure (default 1)")
    parser.add_argument("--engine", action="append", choices=(OURS, THEIRS), help="only this one; repeatable")
    parser.add_argument("--json", metavar="FILE", help="write everything that was found there too; - for standard output")
    parser.add_argument("--networks", type=int, default=NETWORKS, help=f"(default {NETWORKS})")
    parser.add_argument("--endpoints", type=int, default=ENDPOINTS, help=f"(default {ENDPOINTS})")
    parser.add_argument("--ports", type=int, default=PORTS, help=f"(default {PORTS})")
    arguments = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("nsenter") is None:
        console.print("This needs nsenter." if os.geteuid() == 0 else "Run this as root.")
        return 1
    engines = contenders(arguments.engine or (OURS, THEIRS))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for engine in engines:
            engine.start()
            engine.load_image()
        for number in range(arguments.rounds):
            for engine in engines if number % 2 == 0 else reversed(engines):
                many_networks(engine, arguments.networks, arguments.endpoints)
                many_ports(engine, arguments.ports)
        return report(engines, FIGURES, client="the API", rounds=arguments.rounds, target=arguments.json)
    except (BenchFailed, ClientError, OSError) as error:
        console.print(f"[red]{error}[/]")
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for engine in engines:
            engine.end()


if __name__ == "__main__":
    sys.exit(main())
