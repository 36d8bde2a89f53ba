"""`reconcile`: the kernel is brought to what is wanted, whatever happened to it."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading

import pytest
from wharfie_net_bridge.names import host_veth


@pytest.fixture
def running(world, driver):
    """Two networks, three containers, one published port, an outside neighbour."""
    outside = world.neighbour("outside", 1)
    first, second = world.network(1), world.network(2, ipv6=True)
    joined = []
    for net in (first, second):
        driver.create_network(net)
    for name, net, host in (("web", first, 2), ("friend", first, 3), ("db", second, 2)):
        container = world.container(driver, name)
        joined.append(container.join(net, host))
        container.place.serve(80)
    joined[0] = dataclasses.replace(joined[0], ports=(world.port("0.0.0.0:8080:80"),))
    driver.publish(first, joined[0])
    return Running(world, outside, [first, second], joined)


class Running:
    def __init__(self, world, outside, networks, joined):
        self.world = world
        self.outside = outside
        self.networks = networks
        self.joined = joined

    def serves(self):
        friend = next(place for place in self.world._places if place.name == "friend")
        return (
            self.outside.ask("10.213.1.1", 8080, wait=2) == "web 10.213.1.2"
            and friend.ask("10.212.1.2", 80, wait=2) == "web 10.212.1.3"
            and friend.ask("10.212.1.1", 8080, wait=2) == "web 10.212.1.1"
            and self.outside.lost("10.212.2.2", 80)
        )

    def state(self):
        return sorted(self.world.links()), self.world.sh("nft list ruleset")


def test_nothing_changes_when_all_is_well(running, driver):
    before = running.state()
    for _ in range(2):
        assert driver.reconcile(running.networks, running.joined) == []
    assert running.state() == before
    assert running.serves()


def test_a_new_daemon_takes_over(running, world, driver):
    before = running.state()
    driver.close()
    new = world.driver()
    assert running.serves(), "containers do not need the daemon"
    assert new.reconcile(running.networks, running.joined) == []
    assert running.state() == before
    new.unpublish(running.networks[0], running.joined[0])
    assert running.outside.lost("10.213.1.1", 8080)


def test_after_a_reboot(world, driver):
    net = world.network(1)
    driver.create_network(net)
    web = world.container(driver, "web")
    joined = dataclasses.replace(web.join(net, 2), sandbox=None)
    world.end(web.place)
    driver.leave(net, joined)
    driver.delete_network(net)
    assert driver.reconcile([net], [joined]) == []
    assert "br-010101010101" in world.links()
    assert world.elements()["bridges"] == ["br-010101010101"]


@pytest.mark.parametrize(
    "damage",
    [
        "nft flush ruleset",
        "nft flush table inet wharfie_0b5e55ed",
        "nft flush map inet wharfie_0b5e55ed ports4",
        "nft flush set inet wharfie_0b5e55ed bridges",
        "nft add element inet wharfie_0b5e55ed ports4 {{ tcp . 9 : 10.212.1.9 . 9 }}",
        "ip link del br-010101010101",
        "ip link set br-010101010101 down",
        "ip addr flush dev br-010101010101",
        "sysctl -qw net.ipv4.ip_forward=0",
        "ip link del {veth}",
        "ip link set {veth} nomaster",
        "ip link set {veth} down",
    ],
)
def test_damage_is_mended(running, world, driver, damage):
    before = running.state()
    world.sh(damage.format(veth=host_veth(running.joined[0].endpoint.id)))
    assert driver.reconcile(running.networks, running.joined) == []
    assert running.state() == before
    assert running.serves()


def test_a_flushed_firewall_is_made_again_by_the_next_change(running, world, driver):
    world.sh("nft flush ruleset")
    driver.publish(running.networks[0], running.joined[0])
    assert running.serves()
    world.sh("nft flush ruleset")
    driver.unpublish(running.networks[0], running.joined[0])
    assert running.outside.lost("10.213.1.1", 8080)
    assert len(world.elements()["bridges"]) == 2


def test_what_nobody_wants_goes_and_what_is_not_ours_stays(running, world, driver):
    world.sh("ip link add br0 type bridge; ip link add veth1 type veth peer name veth2; nft add table inet other")
    neighbour = world.driver(instance="ffffffff")
    theirs = world.network(3)
    neighbour.create_network(theirs)
    guest = world.container(neighbour, "guest").join(theirs, 2)
    kept = running.networks[:1], running.joined[1:2]
    assert driver.reconcile(*kept) == []
    links = set(world.links())
    assert {"br0", "veth1", "veth2", "br-030303030303", host_veth(guest.endpoint.id), "br-010101010101"} <= links
    assert host_veth(running.joined[1].endpoint.id) in links
    assert "br-020202020202" not in links
    assert host_veth(running.joined[0].endpoint.id) not in links
    assert host_veth(running.joined[2].endpoint.id) not in links
    assert world.elements()["ports4"] == []
    assert world.elements("ffffffff")["bridges"] == ["br-030303030303"]
    assert driver.reconcile([], []) == []
    assert world.sh("nft list tables").split("\n")[:-1] == ["table inet other", "table inet wharfie_ffffffff"]


def test_what_cannot_be_brought_back_is_reported_and_hurts_nobody_else(running, world, driver):
    first, second = running.networks
    web, friend, db = running.joined
    clash = dataclasses.replace(world.network(4), pools=first.pools)
    thief = dataclasses.replace(friend, ports=web.ports)
    lost = dataclasses.replace(db, sandbox=dataclasses.replace(db.sandbox, path="/proc/0/ns/net"))
    bad = dataclasses.replace(world.network(5), options={"com.docker.network.driver.mtu": "x"})
    faults = driver.reconcile([first, second, clash, bad], [web, thief, lost])
    assert {fault.object for fault in faults} == {clash.id, bad.id, friend.endpoint.id, db.endpoint.id}
    assert all(fault.reason for fault in faults)
    assert running.outside.ask("10.213.1.1", 8080) == "web 10.213.1.2"


OWN = "wharfie_net_bridge"
STEP = 23
"""Every so many lines of the driver's own code a daemon is killed."""


def die_at(line: int):
    """Trace function that kills this process when so many lines of the driver have run."""
    left = [line]

    def trace(frame, event, argument):
        if f"/{OWN}/" not in frame.f_code.co_filename:
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


def survives(work) -> bool:
    """Run `work` in a child; False: it was killed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status == 0


def test_a_daemon_killed_at_any_line_leaves_nothing(world):
    net = world.network(1)
    web = world.container(world.driver(), "web")
    links, rules = world.links(), world.sh("nft list ruleset")
    inside = web.place.sh("ip -o link")
    line, finished = 1, False
    while not finished:

        def work(line: int = line) -> None:
            driver = world.driver()
            web.driver = driver
            threading.settrace(die_at(line))
            sys.settrace(die_at(line))
            driver.create_network(net)
            joined = dataclasses.replace(web.join(net, 2), ports=(world.port("0.0.0.0:8080:80"),))
            driver.publish(net, joined)
            driver.leave(net, joined)
            driver.delete_network(net)

        finished = survives(work)
        recovered = world.driver()
        assert recovered.reconcile([], []) == []
        assert (world.links(), world.sh("nft list ruleset")) == (links, rules), f"killed at line {line}"
        assert web.place.sh("ip -o link").replace("UP,LOWER_UP", "").split(":")[1] == inside.split(":")[1]
        line += STEP
    assert line > 20 * STEP
