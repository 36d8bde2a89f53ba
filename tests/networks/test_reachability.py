"""Who reaches whom, by which address, and who the callee thinks is calling. The table is the specification."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from tests.harness import until
from tests.networks.lab import SPARE, Lab
from tests.networks.places import LOST

PATIENCE = 20.0
"""Seconds for an answer that must come."""
MODE = "-o com.docker.network.bridge.gateway_mode_ipv"

NETWORKS = {
    "front": "--ipv6 --subnet 10.213.100.0/24 --subnet fd12:213:100::/64",
    "plain": "--subnet 10.213.101.0/24",
    "apart": "--subnet 10.213.102.0/24 -o com.docker.network.bridge.enable_icc=false",
    "inner": "--subnet 10.213.103.0/24 --internal",
    "routed": f"--ipv6 --subnet 10.213.104.0/24 --subnet fd12:213:104::/64 {MODE}4=routed {MODE}6=routed",
    "open": f"--subnet 10.213.106.0/24 {MODE}4=nat-unprotected",
    "sealed": f"--internal --subnet 10.213.107.0/24 {MODE}4=isolated",
    "six": "--ipv4=false --ipv6 --subnet fd12:213:108::/64",
    "mixed": f"--ipv6 --subnet 10.213.109.0/24 --subnet fd12:213:109::/64 {MODE}6=routed",
    "open6": f"--ipv4=false --ipv6 --subnet fd12:213:110::/64 {MODE}6=nat-unprotected",
    "sealed6": f"--ipv4=false --ipv6 --internal --subnet fd12:213:111::/64 {MODE}6=isolated",
    "trusting": "--subnet 10.213.112.0/24 -o com.docker.network.bridge.trusted_host_interfaces=out1"
    f" -o com.docker.network.host_ipv4={SPARE}",
    "local": "--subnet 10.213.105.0/24 -o com.docker.network.bridge.host_binding_ipv4=127.0.0.1",
    "lan": "-d macvlan -o parent=lan0 --ipv6 --subnet 10.213.9.0/24 --subnet fd12:213:9::/64",
}
CONTAINERS = {
    "web": "--network front --ip 10.213.100.2 --ip6 fd12:213:100::2 -p 8080:80 -p 8080:80/udp -p 127.0.0.1:8081:80"
    f" -p 127.0.0.1:8081:80/udp -p {SPARE}:8082:80 -p [::1]:8083:80 -p [fd12:213:1::1]:8084:80",
    "friend": "--network front --ip 10.213.100.3 --ip6 fd12:213:100::3",
    "old": "--network plain --ip 10.213.101.2 -p 8090:80 -p 8090:80/udp -p [::1]:8091:80",
    "one": "--network apart --ip 10.213.102.2 -p 8100:80",
    "two": "--network apart --ip 10.213.102.3",
    "vault": "--network inner --ip 10.213.103.2 -p 8110:80",
    "clerk": "--network inner --ip 10.213.103.3",
    "router": "--network routed --ip 10.213.104.2 --ip6 fd12:213:104::2 -p 8120:80",
    "bare": "--network open --ip 10.213.106.2 -p 8140:80",
    "monk": "--network sealed --ip 10.213.107.2",
    "nun": "--network sealed --ip 10.213.107.3",
    "new": "--network six --ip6 fd12:213:108::2 -p 8150:80",
    "hybrid": "--network mixed --ip 10.213.109.2 --ip6 fd12:213:109::2 -p 8170:80",
    "bare6": "--network open6 --ip6 fd12:213:110::2",
    "monk6": "--network sealed6 --ip6 fd12:213:111::2",
    "nun6": "--network sealed6 --ip6 fd12:213:111::3",
    "believer": "--network trusting --ip 10.213.112.2 -p 8180:80",
    "shy": "--network local --ip 10.213.105.2 -p 8130:80",
    "guest": "--network lan --ip 10.213.9.10 --ip6 fd12:213:9::10",
    "peer": "--network lan --ip 10.213.9.11 --ip6 fd12:213:9::11",
}


class Row(NamedTuple):
    caller: str
    address: str
    port: int
    answer: str = ""  # who answers, and whom it sees; empty: nobody
    without_proxy: str | None = None  # where that differs with userland-proxy: false
    kinds: str = "tcp"


BOTH = "tcp udp"
TABLE = (
    # A port on all addresses: outside callers are seen as themselves, callers by loopback as the bridge.
    Row("outside", "10.213.1.1", 8080, "web 10.213.1.2", kinds=BOTH),
    Row("outside", SPARE, 8080, "web 10.213.1.2"),
    Row("outside", "fd12:213:1::1", 8080, "web fd12:213:1::2", kinds=BOTH),
    Row("outside", "10.213.100.1", 8080, "web 10.213.1.2"),
    Row("host", "127.0.0.1", 8080, "web 10.213.100.1", kinds=BOTH),
    Row("host", "::1", 8080, "web fd12:213:100::1", "", kinds=BOTH),
    Row("host", "10.213.1.1", 8080, "web 10.213.1.1"),
    Row("host", "fd12:213:1::1", 8080, "web fd12:213:1::1"),
    Row("friend", "10.213.1.1", 8080, "web 10.213.100.1", kinds=BOTH),
    Row("friend", "fd12:213:1::1", 8080, "web fd12:213:100::1"),
    Row("web", "10.213.1.1", 8080, "web 10.213.100.1"),
    Row("old", "10.213.1.1", 8080, "web 10.213.100.1"),
    Row("old", "10.213.101.1", 8080, "web 10.213.100.1"),
    Row("two", "10.213.1.1", 8080, "web 10.213.100.1"),
    Row("clerk", "10.213.1.1", 8080),
    Row("clerk", "10.213.103.1", 8080),
    # Bound to loopback: the host only, however the packet comes.
    Row("host", "127.0.0.1", 8081, "web 10.213.100.1", kinds=BOTH),
    Row("host", "::1", 8083, "web fd12:213:100::1", ""),
    Row("outside", "10.213.1.1", 8081, kinds=BOTH),
    Row("outside", "127.0.0.1", 8081, kinds=BOTH),
    Row("outside", "127.0.0.1", 8080, kinds=BOTH),
    Row("outside", "fd12:213:1::1", 8083),
    Row("friend", "10.213.1.1", 8081),
    Row("friend", "10.213.100.1", 8081),
    Row("friend", "fd12:213:100::1", 8083),
    # Bound to one address of the host.
    Row("outside", SPARE, 8082, "web 10.213.1.2"),
    Row("outside", "10.213.1.1", 8082),
    Row("host", "127.0.0.1", 8082),
    Row("friend", SPARE, 8082, "web 10.213.100.1"),
    Row("outside", "fd12:213:1::1", 8084, "web fd12:213:1::2"),
    Row("host", "::1", 8084),
    # A container without IPv6, by the host's IPv6 addresses: through the proxy, seen as the bridge.
    Row("outside", "10.213.1.1", 8090, "old 10.213.1.2", kinds=BOTH),
    Row("outside", "fd12:213:1::1", 8090, "old 10.213.101.1", "", kinds=BOTH),
    Row("friend", "fd12:213:1::1", 8090, "old 10.213.101.1", ""),
    Row("host", "::1", 8090, "old 10.213.101.1", "", kinds=BOTH),
    Row("host", "::1", 8091, "old 10.213.101.1", ""),
    Row("outside", "fd12:213:1::1", 8091),
    # By the container's own address: neighbours and the host.
    Row("friend", "10.213.100.2", 80, "web 10.213.100.3", kinds=BOTH),
    Row("friend", "10.213.100.2", 81, "web 10.213.100.3"),
    Row("friend", "fd12:213:100::2", 80, "web fd12:213:100::3"),
    Row("host", "10.213.100.2", 81, "web 10.213.100.1"),
    Row("host", "fd12:213:100::2", 81, "web fd12:213:100::1"),
    Row("outside", "10.213.100.2", 80, kinds=BOTH),
    Row("outside", "10.213.100.2", 81),
    Row("outside", "fd12:213:100::2", 80),
    Row("outside", "10.213.100.3", 80),
    Row("old", "10.213.100.2", 80, kinds=BOTH),
    Row("friend", "10.213.101.2", 80),
    Row("friend", "10.213.104.2", 81),
    # Without icc neighbours are apart, but for what is published.
    Row("two", "10.213.102.2", 80),
    Row("two", "10.213.1.1", 8100, "one 10.213.102.1"),
    Row("host", "10.213.102.2", 81, "one 10.213.102.1"),
    Row("outside", "10.213.1.1", 8100, "one 10.213.1.2"),
    # Internal: among themselves and with the host, and no port.
    Row("clerk", "10.213.103.2", 80, "vault 10.213.103.3", kinds=BOTH),
    Row("host", "10.213.103.2", 80, "vault 10.213.103.1"),
    Row("outside", "10.213.1.1", 8110),
    Row("outside", "10.213.103.2", 80),
    Row("host", "127.0.0.1", 8110),
    Row("host", "::1", 8110),
    Row("friend", "10.213.103.2", 80),
    Row("clerk", "10.213.1.2", 80),
    Row("clerk", "10.213.100.2", 80),
    # Routed: published ports by the container's address, and no port of the host.
    Row("outside", "10.213.104.2", 80, "router 10.213.1.2"),
    Row("outside", "fd12:213:104::2", 80, "router fd12:213:1::2"),
    Row("outside", "10.213.104.2", 81),
    Row("outside", "fd12:213:104::2", 81),
    Row("outside", "10.213.1.1", 8120),
    Row("host", "127.0.0.1", 8120),
    Row("host", "::1", 8120),
    Row("router", "10.213.1.2", 80, "outside 10.213.104.2"),
    Row("router", "fd12:213:1::2", 80, "outside fd12:213:104::2"),
    # Without protection: every port, by the container's address too.
    Row("outside", "10.213.106.2", 80, "bare 10.213.1.2", kinds=BOTH),
    Row("outside", "10.213.106.2", 81, "bare 10.213.1.2"),
    Row("outside", "10.213.1.1", 8140, "bare 10.213.1.2"),
    Row("bare", "10.213.1.2", 80, "outside 10.213.1.1"),
    # Isolated: the host has no address there, so neighbours have only each other.
    Row("nun", "10.213.107.2", 80, "monk 10.213.107.3"),
    Row("host", "10.213.107.2", 80),
    Row("outside", "10.213.107.2", 80),
    Row("nun6", "fd12:213:111::2", 80, "monk6 fd12:213:111::3"),
    Row("host", "fd12:213:111::2", 80),
    Row("outside", "fd12:213:111::2", 80),
    # IPv4 translated and IPv6 routed.
    Row("outside", "10.213.1.1", 8170, "hybrid 10.213.1.2"),
    Row("outside", "10.213.109.2", 80),
    Row("outside", "fd12:213:109::2", 80, "hybrid fd12:213:1::2"),
    Row("outside", "fd12:213:109::2", 81),
    Row("outside", "fd12:213:1::1", 8170),
    Row("host", "127.0.0.1", 8170, "hybrid 10.213.109.1"),
    Row("host", "::1", 8170),
    Row("hybrid", "10.213.1.2", 80, "outside 10.213.1.1"),
    Row("hybrid", "fd12:213:1::2", 80, "outside fd12:213:109::2"),
    # IPv6 without protection.
    Row("outside", "fd12:213:110::2", 81, "bare6 fd12:213:1::2"),
    Row("bare6", "fd12:213:1::2", 80, "outside fd12:213:1::1"),
    # Published ports directly from an interface that is trusted, and out by a chosen address of the host.
    Row("outside", "10.213.112.2", 80, "believer 10.213.1.2"),
    Row("outside", "10.213.112.2", 81),
    Row("old", "10.213.112.2", 80),
    Row("believer", "10.213.1.2", 80, f"outside {SPARE}"),
    # IPv6 alone: no port at the host's IPv4 addresses.
    Row("outside", "fd12:213:1::1", 8150, "new fd12:213:1::2"),
    Row("host", "::1", 8150, "new fd12:213:108::1", ""),
    Row("outside", "10.213.1.1", 8150),
    Row("host", "127.0.0.1", 8150),
    Row("new", "fd12:213:1::2", 80, "outside fd12:213:1::1"),
    # A network whose ports are bound to loopback unless they say otherwise.
    Row("host", "127.0.0.1", 8130, "shy 10.213.105.1"),
    Row("outside", "10.213.1.1", 8130),
    Row("host", "::1", 8130),
    # Out into the world: with the host's address, of IPv6 too.
    Row("friend", "10.213.1.2", 80, "outside 10.213.1.1", kinds=BOTH),
    Row("friend", "fd12:213:1::2", 80, "outside fd12:213:1::1"),
    Row("two", "10.213.1.2", 80, "outside 10.213.1.1"),
    # macvlan: a machine of its own on the parent's network, out of the host's reach.
    Row("neighbour", "10.213.9.10", 80, "guest 10.213.9.2", kinds=BOTH),
    Row("neighbour", "fd12:213:9::10", 81, "guest fd12:213:9::2"),
    Row("peer", "10.213.9.10", 80, "guest 10.213.9.11"),
    Row("peer", "fd12:213:9::10", 80, "guest fd12:213:9::11"),
    Row("guest", "10.213.9.2", 80, "neighbour 10.213.9.10"),
    Row("host", "10.213.9.10", 80),
    Row("friend", "10.213.9.10", 80),
    Row("outside", "10.213.9.10", 80),
    Row("guest", "10.213.100.2", 80),
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab"))
    try:
        lab.build()
        for name, words in NETWORKS.items():
            lab.daemon.docker("network", "create", *words.split(), name)
        lab.containers(CONTAINERS)
        yield lab
    finally:
        lab.close()


def differences(lab: Lab, rows: list[tuple[Row, str]]) -> list[str]:
    """Ask all at once; what is not as the table says."""

    def ask(caller: str, address: str, port: int, kind: str, wanted: str) -> str:
        found = lab.places[caller].ask(address, port, kind, wait=PATIENCE if wanted else LOST)
        where = f"{caller} to {address} port {port}/{kind}"
        return "" if found == wanted else f"{where}: {found or 'no answer'}, and not {wanted or 'no answer'}"

    questions = [(*row[:3], kind, wanted) for row, wanted in rows for kind in row.kinds.split()]
    with ThreadPoolExecutor(48) as pool:
        return [found for found in pool.map(lambda question: ask(*question), questions) if found]


def test_with_userland_proxy(lab):
    assert differences(lab, [(row, row.answer) for row in TABLE]) == []


def test_without_userland_proxy(lab):
    """The daemon dies, and comes again with another configuration; containers and ports go on."""
    lab.daemon.kill()
    lab.daemon.config["userland-proxy"] = False
    lab.daemon.start()
    rows = [(row, row.answer if row.without_proxy is None else row.without_proxy) for row in TABLE]
    assert differences(lab, rows) == []
    assert not [line for line in lab.daemon.processes() if "wharfie.proxy" in line]
    # Addresses of containers that run on are theirs: a newcomer gets another one.
    late = lab.container(lab.daemon, "late", "--network", "front")
    assert late.ask("10.213.100.2", 80, "tcp", wait=PATIENCE) == "web 10.213.100.4"
    lab.daemon.docker("rm", "-f", "late")


def test_after_the_hosts_firewall_was_flushed(lab):
    lab.places["host"].sh("nft flush ruleset; nft add table inet theirs")
    first = next(row for row in TABLE if row.answer and row.kinds == "tcp")
    until(lambda: not differences(lab, [(first, first.answer)]), 20, "a whole table")
    rows = [(row, row.answer if row.without_proxy is None else row.without_proxy) for row in TABLE]
    assert differences(lab, rows) == []
    assert "theirs" in lab.places["host"].sh("nft list tables")


def test_subnets_of_the_host_are_not_chosen(lab):
    """Where the host's routes lead, a network would hide what is there."""
    base = lab.daemon.config["default-address-pools"][0]["base"].removesuffix("0/24")
    host = lab.places["host"]
    host.sh(f"ip route add {base}0/28 via 10.213.1.2; ip route add {base}40/32 dev out1")
    lab.daemon.docker("network", "create", "chosen")
    shown = lab.daemon.docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "chosen")
    assert shown == f"{base}16/28"
    lab.daemon.docker("network", "create", "next")
    shown = lab.daemon.docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "next")
    assert shown == f"{base}48/28"
    said = lab.daemon.docker("network", "create", "--subnet", "10.213.1.0/24", "taken", status=1, both=True)
    assert "in use on this host: interface out1" in said
    assert "taken" not in lab.daemon.docker("network", "ls", "--format", "{{.Name}}").split()


def test_direct_routing_and_a_mark_open_what_they_say(lab):
    marks = {"allow-direct-routing": True, "bridge-accept-fwmark": "0x20/0xf0"}
    with lab.another(marks) as daemon:
        daemon.docker("network", "create", "--subnet", "10.213.113.0/24", "direct")
        daemon.docker("network", "create", "--subnet", "10.213.114.0/24", "--internal", "closed")
        words = ("--network", "direct", "--ip", "10.213.113.2")
        lab.container(daemon, "frank", *words, "-p", "8190:80", "-p", "127.0.0.1:8191:81")
        lab.container(daemon, "cell", "--network", "closed", "--ip", "10.213.114.2")
        rows = [
            Row("outside", "10.213.113.2", 80, "frank 10.213.1.2"),
            Row("outside", "10.213.113.2", 81),
            Row("outside", "10.213.1.1", 8190, "frank 10.213.1.2"),
            Row("outside", "10.213.114.2", 80),
        ]
        assert differences(lab, [(row, row.answer) for row in rows]) == []
        host = lab.places["host"]
        host.sh("nft add table ip marks; nft 'add chain ip marks c { type filter hook prerouting priority -150; }'")
        host.sh("nft add rule ip marks c ip saddr 10.213.1.2 meta mark set 0x1020")
        marked = [Row("outside", "10.213.113.2", 81, "frank 10.213.1.2"), rows[-1]]
        assert differences(lab, [(row, row.answer) for row in marked]) == []
        host.sh("nft add rule ip marks c meta mark set 0x1030")
        assert differences(lab, [(rows[1], "")]) == []
        host.sh("nft delete table ip marks")


def test_without_iptables_the_proxy_serves_alone(lab):
    with lab.another({"iptables": False, "ip6tables": False}) as daemon:
        before = lab.places["host"].sh("nft list tables")
        lab.container(daemon, "plain", "-p", "8160:80", "-p", "8160:80/udp", "-p", "127.0.0.1:8161:80")
        gateway = daemon.gateway
        rows = [
            Row("outside", "10.213.1.1", 8160, f"plain {gateway}", kinds=BOTH),
            Row("outside", "fd12:213:1::1", 8160, f"plain {gateway}"),
            Row("host", "127.0.0.1", 8160, f"plain {gateway}"),
            Row("host", "127.0.0.1", 8161, f"plain {gateway}"),
            Row("host", "::1", 8160, f"plain {gateway}"),
            Row("outside", "10.213.1.1", 8161),
        ]
        assert differences(lab, [(row, row.answer) for row in rows]) == []
        assert lab.places["host"].sh("nft list tables") == before
