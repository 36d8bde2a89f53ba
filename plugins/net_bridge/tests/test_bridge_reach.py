"""Who reaches whom: real packets between a host, its neighbours and containers."""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path

import pytest

from wharfie.shim.netns import within
from wharfie.spi.errors import Conflict

BRIDGE = "com.docker.network.bridge."


def start(world, driver, net, name, host, *ports, **given):
    """A container that answers at tcp and udp port 80 on all its addresses, with `ports` published."""
    container = world.container(driver, name)
    joined = container.join(net, host, **given)
    container.place.serve(80)
    container.place.serve(80, "udp")
    joined = dataclasses.replace(joined, ports=tuple(world.port(port) for port in ports))
    if ports:
        driver.publish(net, joined)
    return container.place, joined


def call_by_loopback(place, gateway):
    """Make a place send its packets for 127.0.0.1 to `gateway`, as an attacker on the link would."""
    place.sh("sysctl -qw net.ipv4.conf.all.route_localnet=1 net.ipv4.conf.eth0.route_localnet=1")
    place.sh(f"ip addr flush dev lo; ip route add 127.0.0.1/32 via {gateway}")


@pytest.fixture
def outside(world):
    return world.neighbour("outside", 1)


@pytest.fixture
def net(world, driver):
    net = world.network(1)
    driver.create_network(net)
    return net


def test_a_published_port(world, driver, net, outside):
    web, joined = start(world, driver, net, "web", 2, "0.0.0.0:8080:80", "0.0.0.0:8080:80/udp")
    friend, _ = start(world, driver, net, "friend", 3)
    for kind in ("tcp", "udp"):
        # From outside the caller's address is kept.
        assert outside.ask("10.213.1.1", 8080, kind) == "web 10.213.1.2"
        assert outside.ask("10.212.1.1", 8080, kind) == "web 10.213.1.2"
        # From the host by its own addresses and by loopback.
        assert world.host.ask("10.213.1.1", 8080, kind).startswith("web ")
        assert world.host.ask("127.0.0.1", 8080, kind) == "web 10.212.1.1"
        # From itself and from a neighbour by the host's port (hairpin).
        assert web.ask("10.213.1.1", 8080, kind) == "web 10.212.1.1"
        assert friend.ask("10.213.1.1", 8080, kind) == "web 10.212.1.1"
        assert friend.ask("10.212.1.1", 8080, kind) == "web 10.212.1.1"
        # A neighbour directly, and the host directly.
        assert friend.ask("10.212.1.2", 80, kind) == "web 10.212.1.3"
        assert world.host.ask("10.212.1.2", 80, kind) == "web 10.212.1.1"
        # Nobody else directly, published or not.
        assert outside.lost("10.212.1.2", 80, kind)
        assert outside.lost("10.212.1.3", 80, kind)
    for _ in range(2):
        driver.unpublish(net, joined)
    for place in (outside, world.host, friend):
        assert place.lost("10.213.1.1", 8080)
    assert world.host.lost("127.0.0.1", 8080)


def test_a_container_sees_the_world_by_the_hosts_address(world, driver, net, outside):
    outside.serve(80)
    web, _ = start(world, driver, net, "web", 2)
    assert web.ask("10.213.1.2", 80) == "outside 10.213.1.1"


def test_masquerade_off_and_from_a_chosen_address(world, driver, outside):
    plain = world.network(1, options={BRIDGE + "enable_ip_masquerade": "false"})
    chosen = world.network(2, options={"com.docker.network.host_ipv4": "10.213.1.99"})
    world.sh("ip addr add 10.213.1.99/24 dev out1")
    outside.serve(80)
    for net, seen in ((plain, "10.212.1.2"), (chosen, "10.213.1.99")):
        driver.create_network(net)
        place, _ = start(world, driver, net, net.name, 2)
        assert place.ask("10.213.1.2", 80) == f"outside {seen}"


def test_a_port_bound_to_loopback(world, driver, net, outside):
    start(world, driver, net, "web", 2, "127.0.0.1:8080:80")
    assert world.host.ask("127.0.0.1", 8080) == "web 10.212.1.1"
    assert world.host.lost("10.213.1.1", 8080)
    assert outside.lost("10.213.1.1", 8080)
    # A neighbour on the link sends packets for 127.0.0.1 to us, and somebody has opened route_localnet everywhere.
    for interface in ("all", "out1"):
        Path(f"/proc/sys/net/ipv4/conf/{interface}/route_localnet").write_text("1")
    call_by_loopback(outside, "10.213.1.1")
    assert outside.ask("127.0.0.1", 8080, wait=0.4, source="10.213.1.2") == ""


def test_the_hosts_loopback_is_closed_to_containers(world, driver, net):
    web, _ = start(world, driver, net, "web", 2)
    world.host.serve(9999, address="127.0.0.1")
    assert world.host.ask("127.0.0.1", 9999) == "host 127.0.0.1"
    call_by_loopback(web, "10.212.1.1")
    assert web.ask("127.0.0.1", 9999, wait=0.4, source="10.212.1.2") == ""


def test_a_port_bound_to_one_address(world, driver, net, outside):
    world.sh("ip addr add 10.213.1.50/24 dev out1")
    start(world, driver, net, "web", 2, "10.213.1.50:8080:80")
    other, _ = start(world, driver, net, "other", 3, "10.213.1.1:8080:80")
    assert outside.ask("10.213.1.50", 8080) == "web 10.213.1.2"
    assert outside.ask("10.213.1.1", 8080) == "other 10.213.1.2"
    assert other.ask("10.213.1.50", 8080) == "web 10.212.1.1"
    assert outside.lost("10.212.1.1", 8080)


def test_networks_do_not_see_each_other(world, driver, net, outside):
    second = world.network(2)
    driver.create_network(second)
    web, _ = start(world, driver, net, "web", 2, "0.0.0.0:8080:80")
    db, _ = start(world, driver, second, "db", 2)
    assert db.lost("10.212.1.2", 80) and web.lost("10.212.2.2", 80)
    for address in ("10.213.1.1", "10.212.2.1", "10.212.1.1"):
        assert db.ask(address, 8080) == "web 10.212.1.1", "what is published is published to everyone"


def test_an_internal_network_is_closed_both_ways(world, driver, net, outside):
    inner = world.network(2, internal=True)
    driver.create_network(inner)
    outside.serve(80)
    start(world, driver, net, "web", 2, "0.0.0.0:8080:80")
    one, _ = start(world, driver, inner, "one", 2, "0.0.0.0:8081:80")
    start(world, driver, inner, "two", 3)
    assert one.ask("10.212.2.3", 80) == "two 10.212.2.2"
    one.sh("ip route add default via 10.212.2.1")
    assert one.lost("10.213.1.2", 80)
    assert one.lost("10.212.1.2", 80)
    assert one.lost("10.212.2.1", 8080)
    assert outside.lost("10.212.2.2", 80)
    assert outside.lost("10.213.1.1", 8081)


@pytest.mark.parametrize("filter_bridged", ["0", "1"])
def test_without_icc_neighbours_are_apart(world, driver, outside, filter_bridged):
    setting = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if setting.exists():
        setting.write_text(filter_bridged)
    net = world.network(1, options={BRIDGE + "enable_icc": "false"})
    driver.create_network(net)
    outside.serve(80)
    start(world, driver, net, "web", 2, "0.0.0.0:8080:80")
    other, _ = start(world, driver, net, "other", 3)
    for kind in ("tcp", "udp"):
        assert other.lost("10.212.1.2", 80, kind)
    other.sh("ip route add 10.212.1.2/32 via 10.212.1.1")
    assert other.lost("10.212.1.2", 80), "nor by way of the host"
    assert other.ask("10.213.1.2", 80) == "outside 10.213.1.1"
    assert outside.ask("10.213.1.1", 8080) == "web 10.213.1.2"
    if filter_bridged == "0":
        assert other.ask("10.213.1.1", 8080) == "web 10.212.1.1", "but by what is published"


@pytest.mark.parametrize("filter_bridged", ["0", "1"])
def test_hairpin_needs_no_bridge_filter(world, driver, net, filter_bridged):
    setting = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if setting.exists():
        setting.write_text(filter_bridged)
    web, _ = start(world, driver, net, "web", 2, "0.0.0.0:8080:80")
    friend, _ = start(world, driver, net, "friend", 3)
    assert friend.ask("10.212.1.2", 80) == "web 10.212.1.3"
    assert friend.ask("10.212.1.1", 8080) == "web 10.212.1.1"
    assert web.ask("10.212.1.1", 8080) == "web 10.212.1.1"


def test_ipv6(world, driver, outside):
    net = world.network(1, ipv6=True)
    driver.create_network(net)
    outside.serve(80)
    web, joined = start(world, driver, net, "web", 2, "[::]:8080:80", "0.0.0.0:8080:80", "[fd12:213:1::1]:8081:80/udp")
    friend, _ = start(world, driver, net, "friend", 3)
    assert outside.ask("fd12:213:1::1", 8080) == "web fd12:213:1::2"
    assert outside.ask("10.213.1.1", 8080) == "web 10.213.1.2"
    assert outside.ask("fd12:213:1::1", 8081, "udp") == "web fd12:213:1::2"
    assert world.host.ask("fd12:213:1::1", 8080).startswith("web ")
    assert friend.ask("fd12:212:1::2", 80) == "web fd12:212:1::3"
    assert friend.ask("fd12:213:1::1", 8080) == "web fd12:212:1::1"
    assert web.ask("fd12:213:1::1", 8080) == "web fd12:212:1::1"
    assert web.ask("fd12:213:1::2", 80) == "outside fd12:213:1::1"
    assert outside.lost("fd12:212:1::2", 80)
    driver.unpublish(net, joined)
    assert outside.lost("fd12:213:1::1", 8080)


def test_an_ipv6_port_of_an_ipv4_container_is_left_out(world, driver, net):
    _, joined = start(world, driver, net, "web", 2, "[::]:8080:80", "0.0.0.0:8080:80")
    assert world.elements()["ports6"] == []
    assert len(world.elements()["ports4"]) == 1
    driver.unpublish(net, joined)


def test_sctp_is_translated_too(world, driver, net):
    """That packets pass needs SCTP in the kernel; the table takes the port without."""
    _, joined = start(world, driver, net, "web", 2, "0.0.0.0:8080:80/sctp", "10.213.1.1:8081:81/sctp")
    target = {"concat": ["10.212.1.2", 80]}
    assert world.elements()["ports4"] == [[{"concat": ["sctp", 8080]}, target]]
    assert len(world.elements()["bound4"]) == 1
    driver.unpublish(net, joined)
    assert world.elements()["ports4"] == world.elements()["bound4"] == []


def test_gateway_modes(world, driver, outside):
    outside.serve(80)
    mode = BRIDGE + "gateway_mode_ipv4"
    routed, open_ = world.network(1, options={mode: "routed"}), world.network(2, options={mode: "nat-unprotected"})
    for net in (routed, open_):
        driver.create_network(net)
    one, _ = start(world, driver, routed, "one", 2, "0.0.0.0:8080:80")
    one.serve(81)
    two, _ = start(world, driver, open_, "two", 2)
    assert outside.ask("10.212.1.2", 80) == "one 10.213.1.2"
    assert outside.lost("10.212.1.2", 81), "routed: published ports only"
    assert outside.lost("10.213.1.1", 8080), "routed: no port of the host's"
    assert one.ask("10.213.1.2", 80) == "outside 10.212.1.2"
    assert outside.ask("10.212.2.2", 80) == "two 10.213.1.2"
    assert two.ask("10.213.1.2", 80) == "outside 10.213.1.1"


def test_trusted_interfaces_reach_published_ports_directly(world, driver, outside):
    stranger = world.neighbour("stranger", 2)
    net = world.network(1, options={BRIDGE + "trusted_host_interfaces": "out1"})
    driver.create_network(net)
    web, _ = start(world, driver, net, "web", 2, "0.0.0.0:8080:80")
    web.serve(81)
    assert outside.ask("10.212.1.2", 80) == "web 10.213.1.2"
    assert outside.lost("10.212.1.2", 81)
    assert stranger.lost("10.212.1.2", 80)
    assert stranger.ask("10.213.2.1", 8080) == "web 10.213.2.2"


def test_the_host_becomes_a_router_for_containers_only(world, driver, outside):
    stranger = world.neighbour("stranger", 2)
    stranger.serve(80)
    world.host.sh("ip link add docker7 type bridge; ip addr add 10.213.7.1/24 dev docker7; ip link set docker7 up")
    guest = world.place("guest")
    world.sh(f"ip link add g7 master docker7 type veth peer name eth0 netns {guest.pid}; ip link set g7 up")
    guest.sh("ip addr add 10.213.7.2/24 dev eth0; ip link set eth0 up; ip route add default via 10.213.7.1")
    driver.create_network(world.network(1))
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"
    assert outside.lost("10.213.2.2", 80)
    assert guest.ask("10.213.2.2", 80) == "stranger 10.213.7.2", "other engines' bridges are not ours to close"


def test_a_router_stays_a_router(world, driver, outside):
    stranger = world.neighbour("stranger", 2)
    stranger.serve(80)
    world.sh("sysctl -qw net.ipv4.ip_forward=1")
    driver.create_network(world.network(1))
    assert outside.ask("10.213.2.2", 80) == "stranger 10.213.1.2"


def test_no_drop_on_request(world, outside):
    driver = world.driver(**{"ip-forward-no-drop": True})
    stranger = world.neighbour("stranger", 2)
    stranger.serve(80)
    driver.create_network(world.network(1))
    assert outside.ask("10.213.2.2", 80) == "stranger 10.213.1.2"


def test_the_operators_chain_comes_first_and_survives(world, driver, net, outside):
    start(world, driver, net, "web", 2, "0.0.0.0:8080:80")
    table = f"inet wharfie_{world.instance}"
    world.sh(f"nft add rule {table} operator ip saddr 10.213.1.2 drop")
    assert outside.lost("10.213.1.1", 8080)
    driver.create_network(world.network(2))
    assert "10.213.1.2 drop" in world.sh(f"nft list chain {table} operator")
    world.sh(f"nft flush chain {table} operator")
    assert outside.ask("10.213.1.1", 8080) == "web 10.213.1.2"


def test_ports_one_by_one(world, driver, net, outside):
    _, joined = start(world, driver, net, "web", 2, "0.0.0.0:8080:80", "0.0.0.0:8080:80")
    for _ in range(2):
        driver.publish(net, joined)
    other = world.container(driver, "other")
    taken = dataclasses.replace(other.join(net, 3), ports=(world.port("0.0.0.0:8080:80"), world.port("0.0.0.0:8090:80")))
    with pytest.raises(Conflict, match="8080"):
        driver.publish(net, taken)
    driver.unpublish(net, taken)
    driver.leave(net, taken)
    assert outside.ask("10.213.1.1", 8080) == "web 10.213.1.2", "the holder keeps it"
    assert len(world.elements()["ports4"]) == 1


def test_a_udp_flow_follows_its_port(world, driver, net, outside):
    """A client that keeps sending from one port: before the port is published, while it moves, after it is gone."""
    world.host.serve(8080, "udp")
    with within(outside.path, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
        client.connect(("10.213.1.1", 8080))

        def answer() -> str:
            client.settimeout(5)
            client.send(b"?")
            return client.recv(100).decode()

        assert answer() == "host 10.213.1.2"
        _, first = start(world, driver, net, "first", 2, "0.0.0.0:8080:80/udp")
        assert answer() == "first 10.213.1.2"
        driver.unpublish(net, first)
        assert answer() == "host 10.213.1.2"
        start(world, driver, net, "second", 3, "10.213.1.1:8080:80/udp")
        assert answer() == "second 10.213.1.2"
