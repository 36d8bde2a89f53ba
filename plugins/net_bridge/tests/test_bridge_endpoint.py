"""Endpoints as kernel objects: joining, leaving, and doing either again."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from wharfie_net_bridge.names import host_veth

from wharfie.spi.errors import Conflict, NotFound, Unavailable
from wharfie.spi.network import Sandbox


def inside(container):
    """What the container sees of its own network."""
    links = {link["ifname"]: link for link in json.loads(container.place.sh("ip -j addr"))}
    return {
        name: [f"{found['local']}/{found['prefixlen']}" for found in link["addr_info"] if found["scope"] == "global"]
        for name, link in links.items()
    }


def routes(container, family="-4"):
    return [(r.get("gateway"), r["dev"]) for r in json.loads(container.place.sh(f"ip {family} -j route show default"))]


def gone(world, name, within=5.0):
    end = time.monotonic() + within
    while name in world.links():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_join(world, driver):
    net = world.network(1)
    driver.create_network(net)
    web = world.container(driver, "web")
    attachment = web.join(net, 2).attachment
    assert (attachment.interface, attachment.mac) == ("eth0", "02:42:0a:d4:01:02")
    assert (attachment.gateway4, attachment.gateway6) == (IPv4Address("10.212.1.1"), None)
    assert inside(web) == {"lo": [], "eth0": ["10.212.1.2/24"]}
    assert routes(web) == [("10.212.1.1", "eth0")]
    (link,) = json.loads(web.place.sh("ip -j link show eth0"))
    assert (link["address"], link["mtu"], link["operstate"]) == ("02:42:0a:d4:01:02", 1500, "UP")
    assert json.loads(web.place.sh("ip -j -6 addr show eth0")) == [], "no IPv6 on an IPv4 network, not even link-local"
    assert "LOOPBACK,UP" in web.place.sh("ip link show lo")
    veth = attachment.data["host-interface"]
    assert json.loads(world.sh(f"ip -j -6 addr show {veth}")) == [], "the host's end has no address"
    assert driver.describe(net, web.join(net, 2)) == {"bridge": "br-010101010101", "host-interface": veth}


def test_join_with_ipv6_mac_mtu_and_another_name(world, driver):
    net = driver.plan(world.network(1, ipv6=True, options={"com.docker.network.driver.mtu": "1300"}))
    driver.create_network(net)
    web = world.container(driver, "web")
    attachment = web.join(net, 2, interface="lan.0", mac="02:00:00:00:00:07").attachment
    assert (attachment.mac, attachment.gateway6) == ("02:00:00:00:00:07", IPv6Address("fd12:212:1::1"))
    assert inside(web)["lan.0"] == ["10.212.1.2/24", "fd12:212:1::2/64"]
    assert routes(web, "-6") == [("fd12:212:1::1", "lan.0")]
    (link,) = json.loads(web.place.sh("ip -j link show lan.0"))
    assert (link["address"], link["mtu"]) == ("02:00:00:00:00:07", 1300)
    assert "tentative" not in web.place.sh("ip -6 addr show lan.0 scope global")


def test_ipv6_only(world, driver):
    net = world.network(1, subnets=("fd12:212:1::/64",), ipv4=False, ipv6=True)
    driver.create_network(net)
    one, two = world.container(driver, "one"), world.container(driver, "two")
    assert one.join(net, 2).attachment.mac != two.join(net, 3).attachment.mac
    two.place.serve(80)
    assert one.place.ask("fd12:212:1::3", 80) == "two fd12:212:1::2"


def test_join_again_moves_the_default_route(world, driver):
    first, second = world.network(1, ipv6=True), world.network(2, ipv6=True)
    for net in (first, second):
        driver.create_network(net)
    web = world.container(driver, "web")
    attachment = web.join(first, 2).attachment
    assert web.join(first, 2).attachment == attachment
    web.join(second, 2, interface="eth1", route=False)
    assert routes(web) == [("10.212.1.1", "eth0")]
    web.join(second, 2, interface="eth1", route=True)
    web.join(first, 2, route=False)
    assert (routes(web), routes(web, "-6")) == ([("10.212.2.1", "eth1")], [("fd12:212:2::1", "eth1")])
    web.join(first, 2, route=True)
    web.join(second, 2, interface="eth1", route=False)
    assert (routes(web), routes(web, "-6")) == ([("10.212.1.1", "eth0")], [("fd12:212:1::1", "eth0")])
    assert inside(web) == {
        "lo": [],
        "eth0": ["10.212.1.2/24", "fd12:212:1::2/64"],
        "eth1": ["10.212.2.2/24", "fd12:212:2::2/64"],
    }


def test_an_internal_network_has_no_default_route(world, driver):
    net = world.network(1, internal=True, ipv6=True)
    driver.create_network(net)
    web = world.container(driver, "web")
    attachment = web.join(net, 2).attachment
    assert (attachment.gateway4, attachment.gateway6) == (None, None)
    assert (routes(web), routes(web, "-6")) == ([], [])


def test_another_router_as_gateway(world, driver):
    net = world.network(1)
    pool = dataclasses.replace(net.pools[0], auxiliary={"DefaultGatewayIPv4": "10.212.1.254"})
    net = dataclasses.replace(net, pools=(pool,))
    driver.create_network(net)
    web = world.container(driver, "web")
    assert web.join(net, 2).attachment.gateway4 == IPv4Address("10.212.1.254")
    assert routes(web) == [("10.212.1.254", "eth0")]


def test_a_sandbox_that_is_gone(world, driver):
    net = world.network(1)
    driver.create_network(net)
    web = world.container(driver, "web")
    web.sandbox = Sandbox(id="x", path=Path("/proc/0/ns/net"))
    with pytest.raises(NotFound, match="web is gone"):
        web.join(net, 2)
    assert world.links() == ["lo", "br-010101010101"]


def test_an_interface_name_that_is_taken_leaves_nothing(world, driver):
    first, second = world.network(1), world.network(2)
    for net in (first, second):
        driver.create_network(net)
    web = world.container(driver, "web")
    web.join(first, 2)
    before = world.links()
    with pytest.raises(Conflict, match='"eth0" already'):
        web.join(second, 2)
    assert world.links() == before


def test_a_join_that_fails_in_the_sandbox_leaves_nothing(world, driver):
    net = world.network(1)
    driver.create_network(net)
    web = world.container(driver, "web")
    # A gateway on no network of the sandbox: refused at the last step.
    bad = dataclasses.replace(net, pools=(dataclasses.replace(net.pools[0], gateway=IPv4Address("10.213.9.9")),))
    with pytest.raises(Unavailable, match=r"(?i)gateway|unreachable"):
        web.join(bad, 2)
    assert (world.links(), inside(web)) == (["lo", "br-010101010101"], {"lo": []})


def test_an_endpoint_whose_earlier_sandbox_still_lives(world, driver):
    net = world.network(1)
    driver.create_network(net)
    old, new = world.container(driver, "old"), world.container(driver, "new")
    joined = old.join(net, 2)
    new.driver.join(net, joined.endpoint, new.sandbox)
    assert (inside(old), inside(new)) == ({"lo": []}, {"lo": [], "eth0": ["10.212.1.2/24"]})


def test_a_removed_bridge_is_made_again(world, driver):
    net = world.network(1)
    driver.create_network(net)
    world.sh("ip link del br-010101010101")
    one, two = world.container(driver, "one"), world.container(driver, "two")
    one.join(net, 2)
    two.join(net, 3)
    two.place.serve(80)
    assert one.place.ask("10.212.1.3", 80) == "two 10.212.1.2"


def test_leave_twice(world, driver):
    net = world.network(1)
    driver.create_network(net)
    web = world.container(driver, "web")
    joined = web.join(net, 2)
    for _ in range(2):
        driver.leave(net, joined)
    assert (world.links(), inside(web)) == (["lo", "br-010101010101"], {"lo": []})
    assert web.join(net, 2) == joined, "and join again"


def test_leave_after_the_container_exited(world, driver):
    net = world.network(1)
    driver.create_network(net)
    web = world.container(driver, "web")
    joined = dataclasses.replace(web.join(net, 2), ports=(world.port("0.0.0.0:8080:80"),))
    driver.publish(net, joined)
    world.end(web.place)
    for _ in range(2):
        driver.leave(net, dataclasses.replace(joined, sandbox=None))
    assert gone(world, host_veth(joined.endpoint.id))
    assert world.elements()["ports4"] == [], "leaving ends the publishing"


def test_leave_with_a_namespace_that_somebody_holds(world, driver):
    net = world.network(1)
    driver.create_network(net)
    web = world.container(driver, "web")
    joined = web.join(net, 2)
    with web.sandbox.path.open("rb"):
        world.end(web.place)
        driver.leave(net, dataclasses.replace(joined, sandbox=None))
        assert gone(world, host_veth(joined.endpoint.id)), "its address must not live on"


def test_many_at_once(world, driver):
    net = world.network(1)
    driver.create_network(net)
    containers = [world.container(driver, f"c{number}") for number in range(8)]
    failures = []

    def work(number: int) -> None:
        try:
            for _ in range(3):
                port = world.port(f"0.0.0.0:{8000 + number}:80")
                joined = dataclasses.replace(containers[number].join(net, 10 + number), ports=(port,))
                driver.publish(net, joined)
                driver.leave(net, joined)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert (world.links(), world.elements()["ports4"]) == (["lo", "br-010101010101"], [])
