"""Beside a firewall that drops what it does not know, such as dockerd's."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

CHAIN = "ip filter FORWARD"


@pytest.fixture
def strict(world):
    """What dockerd leaves behind: policy drop, and jumps of its own."""
    world.sh("nft add table ip filter; nft add chain ip filter DOCKER-USER")
    world.sh(f"nft add chain {CHAIN} {{ type filter hook forward priority filter\\; policy drop\\; }}")
    world.sh(f"nft add rule {CHAIN} counter jump DOCKER-USER")


def ours(world, instance=None):
    items = json.loads(world.sh(f"nft -j list chain {CHAIN}"))["nftables"]
    comment = f"wharfie:{instance or world.instance}"
    return sorted(
        item["rule"]["expr"][0]["match"]["right"] for item in items if item.get("rule", {}).get("comment") == comment
    )


def scene(world, driver):
    outside = world.neighbour("outside", 1)
    outside.serve(80)
    net = world.network(1)
    driver.create_network(net)
    places = []
    for name, host in (("web", 2), ("friend", 3)):
        container = world.container(driver, name)
        joined = container.join(net, host)
        container.place.serve(80)
        places.append(container.place)
        if name == "web":
            joined = dataclasses.replace(joined, ports=(world.port("0.0.0.0:8080:80"),))
            driver.publish(net, joined)
    return outside, *places, net


def test_our_traffic_passes(world, driver, strict):
    outside, web, friend, _ = scene(world, driver)
    assert outside.ask("10.213.1.1", 8080) == "web 10.213.1.2"
    assert web.ask("10.213.1.2", 80) == "outside 10.213.1.1"
    assert friend.ask("10.212.1.2", 80) == "web 10.212.1.3"
    assert friend.ask("10.213.1.1", 8080) == "web 10.212.1.1"
    assert outside.lost("10.212.1.2", 80)


def test_the_operators_own_rules_still_decide(world, driver, strict):
    outside, *_ = scene(world, driver)
    world.sh("nft add rule ip filter DOCKER-USER ip saddr 10.213.1.2 drop")
    assert outside.lost("10.213.1.1", 8080)


def test_an_engine_that_comes_later(world, driver):
    outside, _, _, net = scene(world, driver)
    world.sh(
        f"nft add table ip filter; nft add chain {CHAIN} {{ type filter hook forward priority filter\\; policy drop\\; }}"
    )
    assert outside.lost("10.213.1.1", 8080)
    world.container(driver, "third").join(net, 4)
    assert outside.ask("10.213.1.1", 8080) == "web 10.213.1.2", "the next container makes it right"


def test_rules_come_and_go_with_networks_and_policy(world, driver, strict):
    other = world.driver(instance="ffffffff")
    other.create_network(world.network(9))
    first, second = world.network(1), world.network(2)
    for net in (first, second, first):
        driver.create_network(net)
    assert ours(world) == ["br-010101010101"] * 2 + ["br-020202020202"] * 2
    driver.delete_network(first)
    assert ours(world) == ["br-020202020202"] * 2
    assert ours(world, "ffffffff") == ["br-090909090909"] * 2
    world.sh(f"nft chain {CHAIN} {{ policy accept\\; }}")
    driver.reconcile([second], [])
    assert ours(world) == []
    world.sh(f"nft chain {CHAIN} {{ policy drop\\; }}")
    driver.reconcile([second], [])
    driver.delete_network(second)
    assert ours(world) == []
    assert "jump DOCKER-USER" in world.sh(f"nft list chain {CHAIN}")


@pytest.mark.skipif(shutil.which("iptables-nft") is None, reason="iptables is not installed")
def test_iptables_still_understands_its_chain(world, driver):
    world.sh("iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -i docker0 -j ACCEPT")
    driver.create_network(world.network(1))
    listed = world.sh("iptables-nft -S FORWARD")
    assert "-P FORWARD DROP" in listed and "-A FORWARD -i docker0 -j ACCEPT" in listed
    assert "-i br-010101010101" in listed and "-o br-010101010101" in listed
    world.sh("iptables-nft -A FORWARD -o docker0 -j ACCEPT")
    driver.delete_network(world.network(1))
    assert "br-0101" not in world.sh("iptables-nft -S FORWARD")
