"""Networks as kernel objects: what is made, what is refused, what is left alone."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from wharfie.spi.errors import Conflict, Forbidden, Unavailable

NAME = "com.docker.network.bridge.name"


def sysctl(name: str) -> str:
    return Path("/proc/sys/net", *name.split("/")).read_text().strip()


def addresses(world, interface):
    (shown,) = json.loads(world.sh(f"ip -j addr show {interface}"))
    return [f"{found['local']}/{found['prefixlen']}" for found in shown["addr_info"] if found["scope"] == "global"]


def test_create_and_delete_twice_leaves_nothing(world, driver):
    before = world.links()
    net = driver.plan(world.network(1, ipv6=True, options={"com.docker.network.driver.mtu": "1400"}))
    for _ in range(2):
        driver.create_network(net)
    assert world.links() == [*before, "br-010101010101"]
    (shown,) = json.loads(world.sh("ip -j link show br-010101010101"))
    assert (shown["mtu"], shown["ifalias"], "UP" in shown["flags"]) == (1400, f"wharfie:{world.instance}:{net.id}", True)
    assert addresses(world, "br-010101010101") == ["10.212.1.1/24", "fd12:212:1::1/64"]
    assert sysctl("ipv4/conf/br-010101010101/route_localnet") == "1"
    assert sysctl("ipv6/conf/br-010101010101/disable_ipv6") == "0"
    assert sysctl("ipv6/conf/br-010101010101/accept_ra") == "0"
    for _ in range(2):
        driver.delete_network(net)
    assert world.links() == before
    assert world.sh("nft list ruleset") == ""


def test_no_ipv6_unless_asked(world, driver):
    driver.create_network(world.network(1))
    assert sysctl("ipv6/conf/br-010101010101/disable_ipv6") == "1"
    assert sysctl("ipv6/conf/all/forwarding") == "0"
    driver.create_network(world.network(2, ipv6=True))
    assert sysctl("ipv6/conf/all/forwarding") == "1"


def test_forwarding_only_when_needed(world, driver):
    world.sh("ip link add out0 type veth peer name out1")
    Path("/proc/sys/net/ipv6/conf/out0/accept_ra").write_text("1")
    driver.create_network(world.network(1, internal=True))
    assert sysctl("ipv4/ip_forward") == "0"
    driver.create_network(world.network(2, ipv6=True))
    assert sysctl("ipv4/ip_forward") == "1"
    assert sysctl("ipv6/conf/out0/accept_ra") == "2", "a host that forwards must not lose its own IPv6 route"


def test_forwarding_is_left_to_the_operator_who_wants_it(world):
    driver = world.driver(**{"ip-forward": False})
    driver.create_network(world.network(1))
    assert sysctl("ipv4/ip_forward") == "0"


def test_a_bridge_of_the_operator_is_used_and_stays(world, driver):
    world.sh("ip link add br0 type bridge; ip addr add 10.212.1.9/24 dev br0")
    net = driver.plan(world.network(1, options={NAME: "br0"}))
    driver.create_network(net)
    assert addresses(world, "br0") == ["10.212.1.9/24", "10.212.1.1/24"]
    assert driver.reconcile([net], []) == []
    driver.delete_network(net)
    assert "br0" in world.links()
    driver.reconcile([], [])
    assert "br0" in world.links()


def test_an_inhibited_gateway_address_is_not_set(world, driver):
    net = world.network(1, options={"com.docker.network.bridge.inhibit_ipv4": "true"})
    driver.create_network(net)
    assert addresses(world, "br-010101010101") == []


def test_names_that_are_taken(world, driver):
    world.sh("ip link add eth7 type veth peer name eth8")
    with pytest.raises(Conflict, match="no bridge"):
        driver.create_network(world.network(1, options={NAME: "eth7"}))
    driver.create_network(world.network(2))
    with pytest.raises(Conflict, match="another network"):
        driver.create_network(world.network(3, options={NAME: "br-020202020202"}))
    with pytest.raises(Conflict, match="another network"):
        world.driver(instance="ffffffff").create_network(world.network(2))
    assert world.links() == ["lo", "eth8", "eth7", "br-020202020202"]


@pytest.mark.parametrize("taken", ["10.212.1.77/16", "10.212.1.1/32", "fd12:212:1::9/64"])
def test_a_subnet_that_the_host_uses_is_refused(world, driver, taken):
    world.sh(f"ip link add out0 type veth peer name out1; ip addr add {taken} dev out0")
    with pytest.raises(Forbidden, match="in use on this host"):
        driver.create_network(world.network(1, ipv6=True))
    assert "br-010101010101" not in world.links()
    assert world.sh("nft list ruleset") == ""


def test_a_subnet_of_another_bridge_is_refused(world, driver):
    driver.create_network(world.network(1, subnets=("10.212.0.0/16",)))
    with pytest.raises(Forbidden, match="br-010101010101"):
        driver.create_network(world.network(2))


def test_a_subnet_inside_the_hosts_own_wider_network_is_fine(world, driver):
    world.sh("ip link add out0 type veth peer name out1; ip addr add 10.1.2.3/8 dev out0")
    driver.create_network(world.network(1))


def test_a_refusing_kernel_leaves_nothing_half_made(world, driver):
    world.sh(f"nft add table inet wharfie_{world.instance}")
    world.sh(f"nft add map inet wharfie_{world.instance} ports4 {{ type inet_service : ipv4_addr\\; }}")
    with pytest.raises(Unavailable, match="nftables"):
        driver.create_network(world.network(1))
    assert world.links() == ["lo"]


def test_what_the_kernel_says_reaches_the_caller(world, driver):
    with pytest.raises(Unavailable, match="network net1"):
        driver.create_network(world.network(1, ipv6=True, subnets=("ff02::/64",)))
    assert world.links() == ["lo"]


def test_status_and_probe(world, driver):
    driver.probe()
    assert dict(driver.status())["Bridge firewall"] == f"nftables, table inet wharfie_{world.instance}, IPv4 and IPv6"


def test_without_a_firewall_nothing_is_published(world):
    driver = world.driver(iptables=False, ip6tables=False)
    net = world.network(1)
    driver.create_network(net)
    joined = dataclasses.replace(world.container(driver, "web").join(net, 2), ports=(world.port("0.0.0.0:8080:80"),))
    with pytest.raises(Unavailable, match="iptables"):
        driver.publish(net, joined)
    relayed = dataclasses.replace(joined, ports=tuple(dataclasses.replace(port, relayed=True) for port in joined.ports))
    driver.publish(net, relayed)
    driver.unpublish(net, relayed)
    driver.leave(net, joined)
    driver.delete_network(net)
    assert (world.sh("nft list ruleset"), world.links()) == ("", ["lo"])
