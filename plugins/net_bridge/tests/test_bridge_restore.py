"""Somebody else changes the host's firewall: what is ours comes back by itself, what is theirs stays."""

from __future__ import annotations

import dataclasses
import socket
import time

import pytest
from wharfie_net_bridge import watch

from wharfie.shim.netns import within

PATIENCE, LOST = 20.0, 0.4
TABLE = "inet wharfie_0b5e55ed"


def soon(condition, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} s"
        time.sleep(0.02)


@pytest.fixture
def outside(world):
    return world.neighbour("outside", 1)


@pytest.fixture
def net(world, driver):
    net = world.network(1, ipv6=True)
    driver.create_network(net)
    return net


@pytest.fixture
def web(world, driver, net):
    container = world.container(driver, "web")
    joined = container.join(net, 2)
    container.place.serve(80)
    joined = dataclasses.replace(joined, ports=(world.port("0.0.0.0:8080:80"), world.port("[::]:8080:80")))
    driver.publish(net, joined)
    return joined


def reached(outside) -> bool:
    return (
        outside.ask("10.213.1.1", 8080, wait=0.5) == "web 10.213.1.2"
        and outside.ask("fd12:213:1::1", 8080, wait=0.5) == "web fd12:213:1::2"
    )


def rules(world) -> str:
    return world.sh(f"nft -a list table {TABLE}")


@pytest.mark.parametrize(
    "damage",
    [
        "nft flush ruleset",
        f"nft delete table {TABLE}",
        f"nft flush chain {TABLE} published",
        f"nft flush map {TABLE} ports4; nft flush map {TABLE} ports6",
        f"nft flush table {TABLE}",
    ],
)
def test_what_was_flushed_comes_back_by_itself(world, web, outside, damage, monkeypatch):
    """At once, not after the changes of others have paused."""
    monkeypatch.setattr(watch, "_QUIET", 3600.0)
    before = world.elements()
    soon(lambda: reached(outside), "an answer")
    world.sh(damage)
    soon(lambda: reached(outside) and world.elements() == before, damage)


def test_a_connection_of_the_open_moment_does_not_go_on(world, driver, net, outside):
    """Between a flush and the new table a container is open to the outside; what began then has no rule that lets it in,
    although another table made the kernel keep track of it."""
    container = world.container(driver, "web")
    container.join(net, 2)
    listener = within(container.place.path, lambda: socket.create_server(("", 80)))
    client = within(outside.path, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    with listener, client:
        with driver._firewall._lock:  # the moment lasts until the test has had its call
            world.sh("nft flush ruleset")
            world.sh("nft 'table ip theirs { chain c { type filter hook forward priority 0; ct state new counter; }; }'")
            client.settimeout(PATIENCE)
            client.connect(("10.212.1.2", 80))
            connection, _ = listener.accept()
        with connection:
            soon(lambda: "operator" in world.sh("nft list ruleset"), "the table")
            client.send(b"!")
            connection.settimeout(LOST)
            with pytest.raises(TimeoutError):
                connection.recv(1)


def test_a_firewall_that_reloads_finds_its_own_rules_alone(world, web, outside):
    """As nftables.service and firewalld do it: everything flushed, then their own."""
    world.sh(
        "nft 'flush ruleset; table inet theirs { chain c { type filter hook input priority 0; tcp dport 23 drop; }; }'"
    )
    soon(lambda: reached(outside), "a whole table")
    world.sh("nft add rule inet theirs c tcp dport 24 drop")
    assert world.sh("nft list table inet theirs").count("drop") == 2


def test_changes_of_others_do_not_make_ours_anew(world, driver, web, outside):
    """All kinds of networks are there, and the table is taken for whole. That it was looked at shows in the chain of the
    other firewall: it drops by policy, so it gets our rules."""
    option = "com.docker.network.bridge."
    for number, given in enumerate(
        (
            {"internal": True},
            {"options": {option + "enable_icc": "false"}},
            {"ipv6": True, "options": {option + "gateway_mode_ipv6": "routed"}},
            {"options": {option + "gateway_mode_ipv4": "nat-unprotected"}},
            {"options": {"com.docker.network.host_ipv4": "10.213.1.1"}},
        ),
        2,
    ):
        driver.create_network(world.network(number, **given))
    before = rules(world)
    world.sh("nft 'table ip theirs { chain c { type filter hook forward priority 0; policy drop; }; }'")
    soon(lambda: "wharfie:0b5e55ed" in world.sh("nft list table ip theirs"), "our rules beside theirs")
    assert rules(world) == before
    soon(lambda: reached(outside), "an answer")


def test_the_operators_rules_come_back(world, driver, net, web, outside):
    file = world.folder / world.instance / "operator.nft"
    world.sh(f'nft add rule {TABLE} operator ip saddr 10.213.1.2 counter drop comment "mine"')
    soon(file.exists, "the file of the operator's rules")
    world.sh("nft flush ruleset")
    soon(lambda: "mine" in world.sh("nft list ruleset"), "the rules")
    assert outside.lost("10.213.1.1", 8080)
    # Over the end of the last network and of the driver, and a flush that nobody sees.
    driver.close()
    world.sh("nft flush ruleset")
    successor = world.driver()
    assert successor.reconcile([net], [web]) == []
    assert outside.lost("10.213.1.1", 8080)
    assert successor.reconcile([], []) == []
    assert world.sh("nft list ruleset") == ""
    assert successor.reconcile([net], [web]) == []
    assert "mine" in rules(world)
    # An empty chain is the operator's word, too.
    world.sh(f"nft flush chain {TABLE} operator")
    soon(lambda: not file.read_text(), "the file is empty")
    world.sh("nft flush ruleset")
    soon(lambda: reached(outside), "a whole table")
    assert "mine" not in rules(world)


def test_rules_of_the_operator_that_cannot_be_restored_hold_nothing_up(world, driver, web, outside):
    file = world.folder / world.instance / "operator.nft"
    world.sh(f"nft 'add set {TABLE} bad {{ type ipv4_addr; }}; add rule {TABLE} operator ip saddr @bad drop'")
    soon(file.exists, "the file of the operator's rules")
    world.sh("nft flush ruleset")
    soon(lambda: reached(outside), "a whole table")


def test_without_ip6tables_ipv6_is_left_alone(world, outside):
    driver = world.driver(ip6tables=False)
    net = world.network(1, ipv6=True)
    driver.create_network(net)
    container = world.container(driver, "web")
    joined = container.join(net, 2)
    container.place.serve(80)
    relayed = dataclasses.replace(world.port("[::]:8080:80"), relayed=True)
    driver.publish(net, dataclasses.replace(joined, ports=(world.port("0.0.0.0:8080:80"), relayed)))
    assert outside.ask("10.213.1.1", 8080) == "web 10.213.1.2"
    assert outside.ask("fd12:212:1::2", 80) == "web fd12:213:1::2", "nobody keeps it apart"
    assert all(not found for name, found in world.elements().items() if name.endswith("6"))


def test_rules_of_a_daemon_that_had_iptables_go_without(world, net, web, outside):
    world.sh("nft 'table ip theirs { chain c { type filter hook forward priority 0; policy drop; }; }'")
    soon(lambda: "wharfie:0b5e55ed" in world.sh("nft list table ip theirs"), "our rules beside theirs")
    bare = world.driver(iptables=False, ip6tables=False)
    relayed = tuple(dataclasses.replace(port, relayed=True) for port in web.ports)
    assert bare.reconcile([net], [dataclasses.replace(web, ports=relayed)]) == []
    assert "wharfie" not in world.sh("nft list ruleset")
