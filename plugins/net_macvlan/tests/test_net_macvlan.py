"""The drivers `macvlan` and `ipvlan`, on a host of the test's own: a network namespace with one cable to the outside."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import signal
import socket
import subprocess
import threading
from ipaddress import IPv4Address, ip_interface, ip_network
from pathlib import Path

import pytest
from pyroute2 import IPRoute
from wharfie_net_macvlan.driver import IpvlanDriver, MacvlanDriver
from wharfie_net_macvlan.parent import alias, make, makes
from wharfie_net_macvlan.settings import MacvlanSettings

from wharfie.shim.netns import within
from wharfie.shim.system import CLONE_NEWNET, setns, unshare
from wharfie.spi.driver import ContainerFacts, Context, HostFacts
from wharfie.spi.errors import Conflict, InvalidArgument, NotFound, Unavailable, Unsupported
from wharfie.spi.network import Endpoint, Joined, Network, NetworkDriver, Pool, Sandbox

INSTANCE = "0b5e55ed"


def sh(command: str) -> str:
    # Not by sh: where that is busybox, it has an `ip` of its own that knows little.
    return subprocess.run(["bash", "-c", command], check=True, capture_output=True, text=True).stdout


def links() -> list[str]:
    return sorted(name for _, name in socket.if_nameindex())


def network(number: int = 1, *, pools: bool = True, **given: object) -> Network:
    """10.213.<number>.0/24 and fd12:213:<number>::/64; the outside is its gateway."""
    subnets = (f"10.213.{number}.0/24", f"fd12:213:{number}::/64")
    found = tuple(Pool(subnet=ip_network(subnet), gateway=ip_network(subnet)[1]) for subnet in subnets)
    return Network(
        **{
            "id": f"{number:02x}" * 32,
            "name": f"net{number}",
            "pools": found if pools else (),
            "ipv6": True,
            "options": {"parent": "eth1"},
            **given,
        }
    )


class Host:
    """Holds the driver and the namespaces of containers and of the outside."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self._servers: list[socket.socket] = []
        self.driver = self.make()

    def make(self, driver: type[MacvlanDriver] | type[IpvlanDriver] = MacvlanDriver, **settings: str) -> NetworkDriver:
        context = Context(
            state=Path("unused"),
            run=Path("unused"),
            instance=INSTANCE,
            log=logging.getLogger("test"),
            host=HostFacts(kernel=(6, 1), architecture="amd64", cgroup="v2", cpus=2, memory=1 << 30),
            emit=lambda event: None,
        )
        return driver(context, MacvlanSettings.model_validate(settings))

    def sandbox(self) -> Sandbox:
        process = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo ready; exec sleep 600"], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        process.stdout.close()
        self._processes.append(process)
        return Sandbox(id=str(process.pid), path=Path(f"/proc/{process.pid}/ns/net"))

    def end(self, sandbox: Sandbox) -> None:
        for process in self._processes:
            if str(process.pid) == sandbox.id:
                process.send_signal(signal.SIGKILL)
                process.wait()

    def inside(self, sandbox: Sandbox, command: str) -> str:
        return sh(f"nsenter --net={sandbox.path} {command}")

    def serve(self, sandbox: Sandbox, name: str) -> None:
        server = within(sandbox.path, lambda: socket.socket(socket.AF_INET6))
        server.bind(("::", 80))
        server.listen()
        self._servers.append(server)

        def work() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, peer = server.accept()
                    with connection:
                        connection.sendall(f"{name} {peer[0].removeprefix('::ffff:')}".encode())

        threading.Thread(target=work, daemon=True).start()

    def ask(self, sandbox: Sandbox, address: str, wait: float = 5.0) -> str:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with within(sandbox.path, lambda: socket.socket(family)) as client:
            client.settimeout(wait)
            try:
                client.connect((address, 80))
                return client.recv(100).decode()
            except OSError:
                return ""

    def join(self, net: Network, name: str, number: int, sandbox: Sandbox, **given: object) -> Joined:
        endpoint = Endpoint(
            **{
                "id": hashlib.sha256(f"{net.id}{name}".encode()).hexdigest(),
                "network_id": net.id,
                "container": ContainerFacts(id="c" * 64, name=name),
                "interface": "eth0",
                "mac": "",
                "addresses": tuple(ip_interface((pool.subnet[number], pool.subnet.prefixlen)) for pool in net.pools),
                "default_route4": True,
                "default_route6": True,
                **given,
            }
        )
        return Joined(endpoint=endpoint, sandbox=sandbox, attachment=self.driver.join(net, endpoint, sandbox))

    def close(self) -> None:
        for server in self._servers:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
            process.wait()


@pytest.fixture
def host():
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    unshare(CLONE_NEWNET)
    host = Host()
    try:
        sh("ip link set lo up")
        yield host
    finally:
        host.close()
        setns(home, CLONE_NEWNET)
        os.close(home)


@pytest.fixture
def outside(host):
    """A machine at the other end of eth1's cable."""
    outside = host.sandbox()
    sh(f"ip link add eth1 type veth peer name eth0 netns {outside.id}; ip link set eth1 up")
    for command in ("ip link set lo up", "ip link set eth0 up", "ip addr add 10.213.1.1/24 dev eth0"):
        host.inside(outside, command)
    host.inside(outside, "ip addr add fd12:213:1::1/64 dev eth0 nodad")
    host.serve(outside, "outside")
    return outside


def interfaces(host, sandbox):
    return {
        link["ifname"]: [f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a["scope"] == "global"]
        for link in json.loads(host.inside(sandbox, "ip -j addr"))
    }


def test_plan_fills_in_what_is_missing(host):
    driver = host.driver
    assert driver.plan(network()).options == {"parent": "eth1", "macvlan_mode": "bridge"}
    assert driver.plan(network()).needs_gateway
    alone = driver.plan(network(options={}))
    assert alone.options["parent"] == "dm-010101010101" and not alone.needs_gateway
    assert driver.plan(alone) == alone
    chosen = host.make(**{"default-parent": "eth9"})
    assert chosen.plan(network(options={})).options["parent"] == "eth9"
    assert chosen.plan(network(options={}, internal=True)).options["parent"] == "dm-010101010101"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("parent", "lo"),
        ("parent", "a/b"),
        ("parent", "sixteen-letters-"),
        ("macvlan_mode", "ipvlan"),
        ("com.docker.network.driver.mtu", "-1"),
        ("com.docker.network.driver.mtu", "10"),
    ],
)
def test_bad_options_are_refused_and_named(host, option, value):
    with pytest.raises(InvalidArgument, match=option):
        host.driver.plan(network(options={option: value}))


def test_neighbours_of_the_outside(host, outside):
    net = host.driver.plan(network())
    for _ in range(2):
        host.driver.create_network(net)
    one, two = host.sandbox(), host.sandbox()
    joined = host.join(net, "one", 2, one)
    assert (joined.attachment.mac, joined.attachment.gateway4) == ("02:42:0a:d5:01:02", IPv4Address("10.213.1.1"))
    host.join(net, "two", 3, two, mac="02:00:00:00:00:09")
    host.serve(two, "two")
    host.serve(one, "one")
    assert "02:00:00:00:00:09" in host.inside(two, "ip link show eth0")
    for address, caller in (("10.213.1.3", "10.213.1.2"), ("fd12:213:1::3", "fd12:213:1::2")):
        assert host.ask(one, address) == f"two {caller}"
        assert host.ask(outside, address).startswith("two ")
    assert host.ask(one, "10.213.1.1") == "outside 10.213.1.2"
    assert "default via 10.213.1.1" in host.inside(one, "ip route")
    assert "default via fd12:213:1::1" in host.inside(one, "ip -6 route")
    assert host.driver.describe(net, joined) == {"parent": "eth1"}
    assert links() == ["eth1", "lo"], "nothing of a container's is on the host"


def test_private_endpoints_do_not_see_each_other(host, outside):
    net = network(options={"parent": "eth1", "macvlan_mode": "private"})
    host.driver.create_network(net)
    one, two = host.sandbox(), host.sandbox()
    host.join(net, "one", 2, one)
    host.join(net, "two", 3, two)
    host.serve(two, "two")
    assert host.ask(outside, "10.213.1.3") == "two 10.213.1.1"
    assert host.ask(one, "10.213.1.3", 0.4) == ""


def test_passthru_has_one_endpoint(host, outside):
    net = network(options={"parent": "eth1", "macvlan_mode": "passthru"})
    host.driver.create_network(net)
    one, two = host.sandbox(), host.sandbox()
    host.join(net, "one", 2, one)
    with pytest.raises(Unavailable, match="container two in network net1"):
        host.join(net, "two", 3, two)
    assert interfaces(host, two) == {"lo": []}


def test_join_and_leave_again_and_again(host, outside):
    net = network()
    host.driver.create_network(net)
    sandbox = host.sandbox()
    joined = host.join(net, "one", 2, sandbox)
    assert host.join(net, "one", 2, sandbox) == joined
    host.join(net, "one", 2, sandbox, default_route4=False, default_route6=False)
    assert "default" not in host.inside(sandbox, "ip route") + host.inside(sandbox, "ip -6 route")
    host.join(net, "one", 2, sandbox)
    assert "default via 10.213.1.1" in host.inside(sandbox, "ip route")
    for _ in range(2):
        host.driver.leave(net, joined)
    assert interfaces(host, sandbox) == {"lo": []}
    assert host.join(net, "one", 2, sandbox) == joined
    host.end(sandbox)
    host.driver.leave(net, joined)
    host.driver.leave(net, dataclasses.replace(joined, sandbox=None))


def test_no_ipv6_unless_asked(host, outside):
    net = network()
    net = dataclasses.replace(net, pools=net.pools[:1], ipv6=False)
    host.driver.create_network(net)
    sandbox = host.sandbox()
    host.join(net, "one", 2, sandbox)
    assert json.loads(host.inside(sandbox, "ip -6 -j addr show eth0")) == []


def test_leaving_touches_no_stranger(host, outside):
    """A process id may have been given to somebody else: only the endpoint's own interface is removed."""
    net = network()
    host.driver.create_network(net)
    joined = host.join(net, "one", 2, host.sandbox())
    other = host.sandbox()
    host.join(net, "two", 3, other)
    host.driver.leave(net, dataclasses.replace(joined, sandbox=other))
    assert interfaces(host, other)["eth0"] == ["10.213.1.3/24", "fd12:213:1::3/64"]


def test_joins_that_fail_leave_nothing(host, outside):
    net = network()
    host.driver.create_network(net)
    sandbox = host.sandbox()
    with pytest.raises(NotFound, match="one is gone"):
        host.join(net, "one", 2, Sandbox(id="x", path=Path("/proc/0/ns/net")))
    bad = dataclasses.replace(net, pools=(dataclasses.replace(net.pools[0], gateway=IPv4Address("10.9.9.9")),))
    with pytest.raises(Unavailable, match=r"(?i)unreachable"):
        host.join(bad, "one", 2, sandbox)
    assert interfaces(host, sandbox) == {"lo": []}
    host.join(net, "one", 2, sandbox)
    with pytest.raises(Conflict, match='"eth0" already'):
        host.join(network(2), "one", 2, sandbox)
    sh("ip link del eth1")
    with pytest.raises(InvalidArgument, match="gone"):
        host.join(net, "two", 3, host.sandbox())


def test_a_parent_that_does_not_exist(host):
    for parent in ("eth7", "eth7.50"):
        with pytest.raises(InvalidArgument, match='no interface "eth7"'):
            host.driver.create_network(network(options={"parent": parent}))


def kernel_makes(kind: str) -> bool:
    with contextlib.suppress(subprocess.CalledProcessError):
        sh(f"ip link add probe0 {'link eth1' if kind == 'vlan' else ''} type {kind} {'id 7' if kind == 'vlan' else ''}")
        sh("ip link del probe0")
        return True
    return False


@pytest.mark.parametrize(("kind", "parent"), [("dummy", "dm-010101010101"), ("vlan", "eth1.50")])
def test_a_parent_of_its_own(host, outside, kind, parent):
    first = host.driver.plan(network(options={"parent": parent} if kind == "vlan" else {}))
    second = network(2, options={"parent": parent})
    if not kernel_makes(kind) and not (kind == "dummy" and kernel_makes("ifb")):
        with pytest.raises(Unsupported, match="modprobe"):
            host.driver.create_network(first)
        assert links() == ["eth1", "lo"]
        return
    for net in (first, first, second):
        host.driver.create_network(net)
    assert parent in links()
    one, two = host.sandbox(), host.sandbox()
    host.join(first, "one", 2, one)
    joined = host.join(first, "two", 3, two)
    host.serve(two, "two")
    assert host.ask(one, "10.213.1.3") == "two 10.213.1.2"
    assert (joined.attachment.gateway4 is None) == (kind == "dummy")
    host.driver.delete_network(first)
    assert parent in links(), "the other network uses it"
    for _ in range(2):
        host.driver.delete_network(second)
    assert links() == ["eth1", "lo"]


def test_made_parents_are_marked_and_only_they_are_removed(host, outside):
    """With bridges, which every kernel makes, in place of dummies."""
    with IPRoute() as route:
        for number, instance in (("01", INSTANCE), ("02", INSTANCE), ("03", "ffffffff")):
            mark = alias("macvlan", instance, number * 32)
            make(route, f"dm-{number * 6}", "half-made", mark, kinds=("no-such-kind", "bridge"))
    sh(f"ip link add wm-{INSTANCE} type bridge; ip link add br0 type bridge")
    net = network(options={"parent": "dm-010101010101"})
    assert host.driver.reconcile([net], []) == []
    assert links() == ["br0", "dm-010101010101", "dm-030303030303", "eth1", "lo"]
    (shown,) = json.loads(sh("ip -j link show dm-010101010101"))
    assert "UP" in shown["flags"] and shown["ifalias"] == f"wharfie-macvlan:{INSTANCE}:{net.id}"
    host.driver.delete_network(net)
    assert links() == ["br0", "dm-030303030303", "eth1", "lo"]


def test_reconcile_brings_back_and_reports(host, outside):
    net = network()
    host.driver.create_network(net)
    one, two = host.sandbox(), host.sandbox()
    kept, lost = host.join(net, "one", 2, one), host.join(net, "two", 3, two)
    host.inside(one, "ip link del eth0")
    host.end(two)
    host.driver = host.make()
    missing = network(2, options={"parent": "eth7"})
    ended = dataclasses.replace(kept, endpoint=dataclasses.replace(kept.endpoint, id="9" * 64), sandbox=None)
    for _ in range(2):
        faults = host.driver.reconcile([net, missing], [kept, lost, ended])
        assert {fault.object for fault in faults} == {missing.id, lost.endpoint.id}
    assert host.ask(one, "10.213.1.1") == "outside 10.213.1.2"


def test_vepa_goes_by_way_of_the_outside(host, outside):
    """What is at the other end of the cable sends nothing back, so neighbours are apart."""
    net = network(options={"parent": "eth1", "macvlan_mode": "vepa"})
    host.driver.create_network(net)
    one, two = host.sandbox(), host.sandbox()
    host.join(net, "one", 2, one)
    host.join(net, "two", 3, two)
    host.serve(two, "two")
    assert host.ask(outside, "10.213.1.3") == "two 10.213.1.1"
    assert host.ask(one, "10.213.1.3", 0.4) == ""


def test_ipvlans_options(host):
    driver = host.make(IpvlanDriver)
    planned = driver.plan(network())
    assert planned.options == {"parent": "eth1", "ipvlan_mode": "l2", "ipvlan_flag": "bridge"}
    assert planned.needs_gateway
    for mode in ("l3", "l3s"):
        assert not driver.plan(network(options={"parent": "eth1", "ipvlan_mode": mode})).needs_gateway
    assert driver.plan(network(options={})).options["parent"] == "di-010101010101"
    for option, value in (("ipvlan_mode", "l4"), ("ipvlan_flag", "passthru"), ("parent", "lo")):
        with pytest.raises(InvalidArgument, match=option):
            driver.plan(network(options={option: value}))


def test_a_kernel_without_ipvlan_is_found_out(host):
    problems = host.make(IpvlanDriver).check()
    assert [problem.fix for problem in problems] == ([] if makes("ipvlan") else ["modprobe ipvlan"])
    assert host.driver.check() == ()
    assert links() == ["lo"]


ipvlan = pytest.mark.skipif(not makes("ipvlan"), reason="this kernel has no ipvlan")


@ipvlan
def test_ipvlan_neighbours_of_the_outside(host, outside):
    host.driver = host.make(IpvlanDriver)
    net = host.driver.plan(network())
    host.driver.create_network(net)
    one, two = host.sandbox(), host.sandbox()
    joined = host.join(net, "one", 2, one)
    (parent,) = json.loads(sh("ip -j link show eth1"))
    assert (joined.attachment.mac, joined.attachment.gateway4) == (parent["address"], IPv4Address("10.213.1.1"))
    host.join(net, "two", 3, two)
    host.serve(two, "two")
    for address, caller in (("10.213.1.3", "10.213.1.2"), ("fd12:213:1::3", "fd12:213:1::2")):
        assert host.ask(one, address) == f"two {caller}"
        assert host.ask(outside, address).startswith("two ")
    assert host.ask(one, "10.213.1.1") == "outside 10.213.1.2"
    assert host.join(net, "one", 2, one) == joined
    for _ in range(2):
        host.driver.leave(net, joined)
    assert interfaces(host, one) == {"lo": []}


@ipvlan
@pytest.mark.parametrize("mode", ["l3", "l3s"])
def test_ipvlan_as_a_router(host, outside, mode):
    """Two networks with subnets of their own on one parent, without neighbours or gateways."""
    host.driver = host.make(IpvlanDriver)
    options = {"parent": "eth1", "ipvlan_mode": mode}
    first, second = (host.driver.plan(network(number, options=options)) for number in (2, 3))
    one, two = host.sandbox(), host.sandbox()
    for net, name, sandbox in ((first, "one", one), (second, "two", two)):
        host.driver.create_network(net)
        joined = host.join(net, name, 2, sandbox)
        assert joined.attachment.gateway4 is None
        assert "default dev eth0" in host.inside(sandbox, "ip route")
    host.serve(two, "two")
    assert host.ask(one, "10.213.3.2") == "two 10.213.2.2"
    host.inside(outside, "ip route add 10.213.3.0/24 dev eth0")
    host.join(first, "one", 2, one, default_route4=False, default_route6=False)
    assert "default" not in host.inside(one, "ip route")


@ipvlan
def test_private_ipvlan_endpoints_do_not_see_each_other(host, outside):
    host.driver = host.make(IpvlanDriver)
    net = network(options={"parent": "eth1", "ipvlan_flag": "private"})
    host.driver.create_network(net)
    one, two = host.sandbox(), host.sandbox()
    host.join(net, "one", 2, one)
    host.join(net, "two", 3, two)
    host.serve(two, "two")
    assert host.ask(outside, "10.213.1.3") == "two 10.213.1.1"
    assert host.ask(one, "10.213.1.3", 0.4) == ""
