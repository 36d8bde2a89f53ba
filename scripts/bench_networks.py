"""`make bench`, third part: 200 networks and 500 endpoints, by our engine beside dockerd, what a request to a published
port costs with one of them and with a thousand, and how much goes through.

Times of the first and of the last tenth of each series stand side by side: what they differ by is the price of the others.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from contest import IMAGE, OURS, THEIRS, BenchFailed, Contender, Figure, conduct, contenders, in_turns, options, report

from wharfie.client.client import Client

NETWORKS, ENDPOINTS, PORTS = 200, 500, 1000
SECONDS, TURNS = 1, 8
_IPERF = 5201
_GONE_SECONDS = 60.0
_OUTER, _NEIGHBOUR = "198.18.0.1", "198.18.0.2"
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
    Figure("one_relayed", "a request by the proxy, 1 port published", "ms"),
    Figure("many_relayed", f"a request by the proxy, {PORTS} ports", "ms"),
    Figure("between", "container to container", "Gbit/s", more_is_better=True, aim=1.0),
    Figure("published", "through a published port, 127.0.0.1", "Gbit/s", more_is_better=True, aim=1.0),
    Figure("outside", "the same from another machine", "Gbit/s", more_is_better=True, aim=1.0),
    Figure("relayed", "through the proxy, [::1]", "Gbit/s", more_is_better=True, aim=1.0),
)

_CONNECT = """
import socket, sys, time
for _ in range(int(sys.argv[2])):
    began = time.perf_counter()
    with socket.create_connection((sys.argv[3], int(sys.argv[1])), timeout=5) as connection:
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
    """Make, join, look, leave, remove. Errors: BenchFailed (something of it is left in the kernel)."""
    assert engine.process is not None
    before = _kernel(engine.process.pid)
    with contextlib.closing(Client(engine.host)) as client:

        def make(number: int) -> None:
            pools = [{"Subnet": f"10.{100 + number // 250}.{number % 250}.0/24"}]
            client.post("/networks/create", {"Name": f"bench-{number}", "IPAM": {"Config": pools}})

        def move(verb: str, box: str, number: int) -> None:
            client.post(f"/networks/bench-{number}/{verb}", {"Container": box})

        names = [f"/networks/bench-{number}" for number in range(networks)]
        series(engine, "create", [partial(make, number) for number in range(networks)])
        boxes = [_started(client, network=f"bench-{n}") for n in range(min(CONTAINERS, networks))]
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
    deadline = time.monotonic() + _GONE_SECONDS
    while left := _kernel(engine.process.pid) - before:
        if time.monotonic() > deadline:
            raise BenchFailed(f"{engine.name} leaves in the kernel: {', '.join(sorted(left)[:5])}")
        time.sleep(0.1)


def _kernel(pid: int) -> set[str]:
    """The names of interfaces and the lines of the firewall in the network namespace of a process."""

    def said(*words: str) -> list[str]:
        return subprocess.run([*_beside(pid), *words], capture_output=True, text=True, check=True).stdout.splitlines()

    links = {line.split(": ")[1] for line in said("ip", "-o", "link")}
    return links | {line.strip() for line in said("nft", "--stateless", "list", "ruleset")}


def many_ports(engine: Contender, ports: int) -> None:
    """Requests from the host's own loopback, alone and beside many."""
    assert engine.process is not None
    with contextlib.closing(Client(engine.host)) as client:
        served = _started(client, _bindings(80, FIRST_PORT, 1, "127.0.0.1", "::1"))
        engine.add("one_port", _connections(engine, "127.0.0.1"))
        engine.add("one_relayed", _connections(engine, "::1"))
        others = _started(client, _bindings(1000, FIRST_PORT + 1, ports - 1, "127.0.0.1"))
        engine.add("many_ports", _connections(engine, "127.0.0.1"))
        engine.add("many_relayed", _connections(engine, "::1"))
        for box in (served, others):
            client.delete(f"/containers/{box}", {"force": True})


def throughput(engine: Contender, seconds: int) -> None:
    """One stream of TCP by iperf3, which runs in the namespaces of the containers but is the host's own."""
    assert engine.process is not None
    with contextlib.closing(Client(engine.host)) as client, _neighbour(engine.process.pid) as neighbour:
        server = _started(client, _bindings(_IPERF, FIRST_PORT, 1, "127.0.0.1", "::1", _OUTER))
        caller = _started(client)
        inspected = client.get(f"/containers/{server}/json")
        address = inspected["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        pids = [client.get(f"/containers/{box}/json")["State"]["Pid"] for box in (server, caller)]
        words = [*_beside(pids[0]), "iperf3", "--server", "--port", str(_IPERF)]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as serving:
            try:
                engine.add("between", _gigabits(pids[1], address, _IPERF, seconds))
                engine.add("published", _gigabits(engine.process.pid, "127.0.0.1", FIRST_PORT, seconds))
                engine.add("outside", _gigabits(neighbour, _OUTER, FIRST_PORT, seconds))
                engine.add("relayed", _gigabits(engine.process.pid, "::1", FIRST_PORT, seconds))
            finally:
                serving.terminate()
        for box in (server, caller):
            client.delete(f"/containers/{box}", {"force": True})


@contextlib.contextmanager
def _neighbour(pid: int) -> Iterator[int]:
    """A process in a network namespace that stands for another machine, on a cable with the engine's."""
    with subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            holder.stdout.readline()
            here, there = f"nsenter --net --target {pid} ip", f"nsenter --net --target {holder.pid} ip"
            for words in (
                f"{here} link add bench0 type veth peer name eth0 netns {holder.pid}",
                f"{here} address add {_OUTER}/30 dev bench0",
                f"{here} link set bench0 up",
                f"{there} address add {_NEIGHBOUR}/30 dev eth0",
                f"{there} link set eth0 up",
            ):
                subprocess.run(words.split(), check=True)
            yield holder.pid
        finally:
            subprocess.run(f"nsenter --net --target {pid} ip link delete bench0".split(), check=False)
            holder.kill()


def _gigabits(pid: int, address: str, port: int, seconds: int) -> float:
    """What arrives there in a second, from the network namespace of a process. Errors: BenchFailed."""
    words = [*_beside(pid), "iperf3", "--client", address, "--port", str(port), "--time", str(seconds), "--json"]
    failure = ""
    for _ in range(20):  # the server may need a moment
        result = subprocess.run(words, capture_output=True, text=True, check=False)
        ended = json.loads(result.stdout)["end"] if result.returncode == 0 else {}
        if "sum_received" in ended:  # it may fail and end with 0, when the server's last test is not over
            return float(ended["sum_received"]["bits_per_second"]) / 1e9
        failure = result.stdout[-300:] + result.stderr[-300:]
        time.sleep(0.1)
    raise BenchFailed(f"iperf3 to {address} port {port}: {failure}")


def _beside(pid: int) -> list[str]:
    return ["nsenter", "--net", "--target", str(pid)]


def _bindings(inside: int, outside: int, count: int, *addresses: str) -> dict[str, object]:
    return {
        f"{inside + number}/tcp": [{"HostIp": address, "HostPort": str(outside + number)} for address in addresses]
        for number in range(count)
    }


def _started(client: Client, bindings: dict[str, object] | None = None, network: str = "bridge") -> str:
    """A web server in a container. A dockerd before 24 publishes what is exposed, and passes over other bindings."""
    body = {
        "Image": IMAGE,
        "Cmd": ["busybox", "httpd", "-f", "-p", "80"],
        "ExposedPorts": {port: {} for port in bindings or ()},
        "HostConfig": {"PortBindings": bindings or {}, "NetworkMode": network},
    }
    made: str = client.post("/containers/create", body)["Id"]
    client.post(f"/containers/{made}/start")
    return made


def _connections(engine: Contender, address: str) -> float:
    """What the fastest tenth of many takes at most, in milliseconds, from the engine's own network namespace: the others
    waited for a processor rather than for the engine."""
    assert engine.process is not None
    words = [*_beside(engine.process.pid), sys.executable, "-c", _CONNECT, str(FIRST_PORT), str(CONNECTIONS), address]
    for _ in range(20):  # the server in the container may need a moment
        result = subprocess.run(words, capture_output=True, text=True, check=False)
        if result.returncode == 0:
            return statistics.quantiles(map(float, result.stdout.split()), n=10)[0] * 1000
        time.sleep(0.1)
    raise BenchFailed(f"{engine.name}: {address} port {FIRST_PORT} is not reached: {result.stderr[-300:]}")


def work(engines: Sequence[Contender], arguments: argparse.Namespace) -> int:
    """All of it. Errors: BenchFailed, ClientError."""
    for engine in engines:
        engine.start()
        engine.load_image()
    for engine in in_turns(engines, arguments.rounds):
        many_networks(engine, arguments.networks, arguments.endpoints)
        many_ports(engine, arguments.ports)
    # Often and shortly: what else the machine does changes within seconds, and so does what goes through.
    for engine in in_turns(engines, arguments.rounds * arguments.turns):
        throughput(engine, arguments.seconds)
    return report(engines, FIGURES, client="the API", rounds=arguments.rounds, target=arguments.json)


def main() -> int:
    parser = options("Networks: our engine beside dockerd, if one is installed.", rounds=1)
    parser.add_argument("--networks", type=int, default=NETWORKS, help=f"(default {NETWORKS})")
    parser.add_argument("--endpoints", type=int, default=ENDPOINTS, help=f"(default {ENDPOINTS})")
    parser.add_argument("--ports", type=int, default=PORTS, help=f"(default {PORTS})")
    parser.add_argument("--seconds", type=int, default=SECONDS, help=f"of each throughput (default {SECONDS})")
    parser.add_argument("--turns", type=int, default=TURNS, help=f"at the throughputs in each round (default {TURNS})")
    arguments = parser.parse_args()
    return conduct(
        partial(contenders, arguments.engine or (OURS, THEIRS)),
        partial(work, arguments=arguments),
        needs=("nsenter", "iperf3", "ip", "nft"),
    )


if __name__ == "__main__":
    sys.exit(main())
