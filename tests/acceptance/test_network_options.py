"""What `docker network` and `docker run --network` may say about addresses, routes, interfaces and configurations."""

from __future__ import annotations

import json
import socket

import pytest

from tests.harness import free_port, until

SERVE = "echo page > /tmp/index.html; exec httpd -f -h /tmp -p 80"


def _default(daemon, container, *family):
    lines = daemon.docker("exec", container, "ip", *family, "route").splitlines()
    return [line.split(" dev ")[1].split()[0] for line in lines if line.startswith("default")]


def _page(host, port):
    try:
        with socket.create_connection((host, port), timeout=2) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return connection.makefile("rb").read().partition(b"\r\n\r\n")[2]
    except OSError:
        return None


def _inspect(daemon, network, *words):
    return json.loads(daemon.docker("network", "inspect", *words, network))[0]


def test_the_gateway_goes_to_the_highest_priority(daemon, name):
    for letter in "abc":
        daemon.docker("network", "create", f"{name}-{letter}")
    first = ("--network", f"name={name}-a,gw-priority=1", "--network", f"name={name}-b,gw-priority=5")
    daemon.docker("run", "-d", "--name", name, *first, "busybox", "sleep", "600")
    assert _default(daemon, name) == ["eth1"]
    daemon.docker("network", "connect", "--gw-priority", "9", f"{name}-c", name)
    assert _default(daemon, name) == ["eth2"]
    daemon.docker("network", "disconnect", f"{name}-c", name)
    assert _default(daemon, name) == ["eth1"]
    daemon.docker("network", "disconnect", f"{name}-b", name)
    assert _default(daemon, name) == ["eth0"]
    daemon.docker("network", "connect", "--gw-priority", "-1", f"{name}-b", name)
    assert _default(daemon, name) == ["eth0"]
    daemon.docker("restart", "-t", "0", name)
    assert _default(daemon, name) == ["eth0"]


def test_published_ports_follow_the_gateway(daemon, name):
    port = free_port()
    for letter in "ab":
        daemon.docker("network", "create", f"{name}-{letter}")
    words = ("--network", f"{name}-a", "-p", f"127.0.0.1:{port}:80")
    daemon.docker("run", "-d", "--name", name, *words, "busybox", "sh", "-c", SERVE)
    assert until(lambda: _page("127.0.0.1", port)) == b"page\n"
    daemon.docker("network", "connect", "--gw-priority", "5", f"{name}-b", name)
    assert _page("127.0.0.1", port) == b"page\n"
    daemon.docker("network", "disconnect", f"{name}-b", name)
    assert _page("127.0.0.1", port) == b"page\n"
    daemon.docker("network", "connect", f"{name}-b", name)
    daemon.docker("network", "disconnect", f"{name}-a", name)
    assert _page("127.0.0.1", port) == b"page\n"
    assert daemon.docker("port", name, "80/tcp") == f"127.0.0.1:{port}"


def test_a_container_that_gets_a_way_out_gets_its_ports(daemon, name):
    port = free_port()
    daemon.docker("network", "create", "--internal", f"{name}-in")
    daemon.docker("network", "create", f"{name}-out")
    words = ("--network", f"{name}-in", "-p", f"127.0.0.1:{port}:80")
    daemon.docker("run", "-d", "--name", name, *words, "busybox", "sh", "-c", SERVE)
    assert _page("127.0.0.1", port) is None
    daemon.docker("network", "connect", f"{name}-out", name)
    assert until(lambda: _page("127.0.0.1", port)) == b"page\n"


def test_ipv6_from_end_to_end(daemon, name):
    """A ULA subnet of its own; neighbours by name, the host by the gateway and by the published port."""
    port = free_port()
    daemon.docker("network", "create", "--ipv6", name)
    pools = {pool["Subnet"]: pool for pool in _inspect(daemon, name)["IPAM"]["Config"]}
    [subnet] = [text for text in pools if text.startswith("fd")]
    assert subnet.endswith("/64")
    words = ("--network", name, "-p", f"[::]:{port}:80")
    daemon.docker("run", "-d", "--name", f"{name}-a", *words, "busybox", "sh", "-c", SERVE)
    daemon.docker("run", "--rm", "--network", name, "busybox", "ping", "-6", "-c1", "-W2", f"{name}-a")
    assert daemon.docker("port", f"{name}-a", "80/tcp") == f"[::]:{port}"
    assert until(lambda: _page(pools[subnet]["Gateway"], port)) == b"page\n"
    assert _default(daemon, f"{name}-a", "-6") == ["eth0"]


def test_the_versions_of_ip_have_gateways_of_their_own(daemon, name):
    daemon.docker("network", "create", f"{name}-four")
    daemon.docker("network", "create", "--ipv6", f"{name}-both")
    words = ("--network", f"name={name}-four,gw-priority=5", "--network", f"{name}-both")
    daemon.docker("run", "-d", "--name", name, *words, "busybox", "sleep", "600")
    assert _default(daemon, name) == ["eth0"]
    assert _default(daemon, name, "-6") == ["eth1"]


def test_addresses_of_an_endpoint(daemon, name):
    subnets = ("--ipv6", "--subnet", "fd44:77::/64", "--subnet", "10.215.78.0/24")
    daemon.docker("network", "create", *subnets, "--aux-address", "router=10.215.78.2", name)
    pools = {pool["Subnet"]: pool for pool in _inspect(daemon, name)["IPAM"]["Config"]}
    assert pools["10.215.78.0/24"]["AuxiliaryAddresses"] == {"router": "10.215.78.2"}
    wanted = ("--ip", "10.215.78.9", "--ip6", "fd44:77::77", "--mac-address", "02:42:aa:bb:cc:dd")
    daemon.docker("run", "-d", "--name", f"{name}-a", "--network", name, *wanted, "busybox", "sleep", "600")

    def shown():
        endpoint = daemon.inspect(f"{name}-a")["NetworkSettings"]["Networks"][name]
        return endpoint["IPAddress"], endpoint["GlobalIPv6Address"], endpoint["MacAddress"]

    assert shown() == ("10.215.78.9", "fd44:77::77", "02:42:aa:bb:cc:dd")
    addresses = daemon.docker("exec", f"{name}-a", "ip", "addr", "show", "eth0")
    assert "fd44:77::77/64" in addresses and "02:42:aa:bb:cc:dd" in addresses
    daemon.docker("restart", "-t", "0", f"{name}-a")
    assert shown() == ("10.215.78.9", "fd44:77::77", "02:42:aa:bb:cc:dd")
    address = daemon.docker("run", "--rm", "--network", name, "busybox", "ip", "-4", "-o", "addr", "show", "eth0")
    assert "10.215.78.3/24" in address  # .1 is the gateway, .2 the auxiliary address
    for words, text in (
        (("--ip", "1.2.3.4"), "no configured subnet or ip-range contain the IP address 1.2.3.4"),
        (("--ip6", "fd99::1"), "no configured subnet or ip-range contain the IP address fd99::1"),
    ):
        said = daemon.docker("create", "--network", name, *words, "busybox", status=1, both=True)
        assert f"invalid config for network {name}: invalid endpoint settings:" in said and text in said


def test_settings_of_an_interface(daemon, name):
    daemon.docker("network", "create", f"{name}-a")
    daemon.docker("network", "create", f"{name}-b")
    option = "driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME"
    words = ("--network", f"{name}-a", "--network", f"name={name}-b,{option}.log_martians=1")
    line = "cat /proc/sys/net/ipv4/conf/eth?/log_martians"
    assert daemon.docker("run", "--rm", *words, "busybox", "sh", "-c", line).split() == ["0", "1"]
    for setting, text in (
        ("net.core.somaxconn=9", "want net.FAMILY.conf.IFNAME.SETTING=VALUE"),
        ("net.ipv4.conf.IFNAME.none=1", "No such file or directory"),
        ("net.ipv4.conf.IFNAME.log_martians=no", "Invalid argument"),
    ):
        refused = f"name={name}-b,driver-opt=com.docker.network.endpoint.sysctls={setting}"
        result = daemon.run_docker("run", "--name", f"{name}-c", "--network", refused, "busybox", "true")
        assert result.returncode and text in result.stderr.decode()
        daemon.run_docker("rm", f"{name}-c")
    daemon.docker("run", "-d", "--name", f"{name}-d", "--network", f"{name}-a", "busybox", "sleep", "600")
    more = "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.arp_ignore=2"
    daemon.docker("network", "connect", "--driver-opt", more, f"{name}-b", f"{name}-d")
    for _ in range(2):
        assert daemon.docker("exec", f"{name}-d", "cat", "/proc/sys/net/ipv4/conf/eth1/arp_ignore") == "2"
        daemon.docker("restart", "-t", "0", f"{name}-d")


def test_networks_from_a_configuration(daemon, name):
    config, network = f"{name}-config", f"{name}-net"
    daemon.docker(
        "network",
        "create",
        "--config-only",
        "--subnet",
        "10.215.79.0/24",
        "-o",
        "com.docker.network.driver.mtu=1300",
        config,
    )
    shown = _inspect(daemon, config)
    assert (shown["ConfigOnly"], shown["Driver"], shown["Containers"]) == (True, "null", {})
    assert shown["IPAM"]["Config"] == [{"Subnet": "10.215.79.0/24"}]
    daemon.docker("network", "create", "--config-from", config, network)
    made = _inspect(daemon, network)
    assert (made["ConfigFrom"], made["ConfigOnly"], made["Driver"]) == ({"Network": config}, False, "bridge")
    assert made["IPAM"]["Config"][0]["Subnet"] == "10.215.79.0/24"
    link = daemon.docker("run", "--rm", "--network", network, "busybox", "ip", "addr", "show", "eth0")
    assert "mtu 1300" in link and "10.215.79.2/24" in link
    for words, text in (
        (("network", "create", "--config-from", network, f"{name}-x"), f'"{network}" is not a configuration network'),
        (("network", "create", "--config-from", f"{name}-no", f"{name}-x"), "does not exist"),
        (("network", "create", "--config-from", config, "--subnet", "10.215.80.0/24", f"{name}-x"), "are not supported"),
        (("network", "create", "--config-only", "--internal", f"{name}-x"), "can only contain network specific fields"),
        (("network", "rm", config), f'configuration network "{config}" is in use'),
        (("create", "--network", config, "busybox"), "cannot create endpoint on configuration-only network"),
    ):
        assert text in daemon.docker(*words, status=1, both=True)
    daemon.docker("network", "rm", network)
    assert config not in daemon.docker("network", "prune", "-f")
    daemon.docker("network", "rm", config)


def test_pruning_networks(daemon, name):
    for letter, label in (("a", "x"), ("b", "y"), ("used", "x")):
        daemon.docker("network", "create", "--label", f"of={name}", "--label", label, f"{name}-{letter}")
    daemon.docker("create", "--name", name, "--network", f"{name}-used", "busybox")
    words = ("network", "prune", "-f", "--filter", f"label=of={name}")
    assert name not in daemon.docker(*words, "--filter", "until=10m")
    pruned = daemon.docker(*words, "--filter", "label!=y", "--filter", "until=0s")
    assert f"{name}-a" in pruned and f"{name}-b" not in pruned and f"{name}-used" not in pruned
    assert f"{name}-b" in daemon.docker(*words)


def test_all_pools_taken(make_daemon):
    own = make_daemon(config={"default-address-pools": [{"base": "10.215.90.0/29", "size": 30}]})
    for number in range(2):
        own.docker("network", "create", f"n{number}x")
    text = own.docker("network", "create", "n2x", status=1, both=True)
    assert "all predefined address pools have been fully subnetted" in text
    own.docker("network", "rm", "n0x")
    own.docker("network", "create", "n2x")


def test_all_exposed_ports(daemon, name):
    words = ("-P", "--expose", "80", "--expose", "81-82/udp")
    daemon.docker("run", "-d", "--name", name, *words, "busybox", "sleep", "600")
    assert {line.split()[0] for line in daemon.docker("port", name).splitlines()} == {"80/tcp", "81/udp", "82/udp"}


def test_a_verbose_inspect(daemon, name):
    daemon.docker("network", "create", name)
    assert _inspect(daemon, name, "--verbose") == _inspect(daemon, name)


@pytest.mark.parametrize("address", ["zz", "02:42"])
def test_hardware_addresses_are_checked(daemon, name, address):
    endpoint = {name: {"MacAddress": address}}
    daemon.docker("network", "create", name)
    body = {"Image": "busybox", "HostConfig": {"NetworkMode": name}, "NetworkingConfig": {"EndpointsConfig": endpoint}}
    status, answer = daemon.request("POST", "/v1.45/containers/create", body)
    assert status == 400 and "invalid MAC address" in answer["message"]


def test_names_of_interfaces(daemon, name):
    prefix = "com.docker.network.container_iface_prefix"
    daemon.docker("network", "create", "-o", f"{prefix}=lan", name)
    daemon.docker("network", "create", f"{name}2")
    named = f"name={name}2,driver-opt=com.docker.network.endpoint.ifname=uplink"
    words = ("run", "-d", "--name", name, "--network", name, "--network", named, "busybox", "sleep", "600")
    daemon.docker(*words)
    daemon.docker("network", "connect", "bridge", name)
    assert daemon.docker("exec", name, "ls", "/sys/class/net").split() == ["eth0", "lan0", "lo", "uplink"]
    bad = f"name={name},driver-opt=com.docker.network.endpoint.ifname=a/b"
    said = daemon.docker("create", "--network", bad, "busybox", status=1, both=True)
    assert "cannot be the name of an interface" in said
    assert prefix in daemon.docker("network", "create", "-o", f"{prefix}=far-too-long-", f"{name}3", status=1, both=True)


def test_several_pools_of_one_version(daemon, name):
    """A container gets one address: of the pool that has the wanted one, or of the first that is not full."""
    # Not by the CLI, which sends them in any order.
    pools = [
        {"Subnet": "10.215.79.0/29", "IPRange": "10.215.79.4/31"},
        {"Subnet": "10.215.79.32/28", "IPRange": "10.215.79.40/29"},
    ]
    assert (
        daemon.request("POST", "/networks/create", {"Name": name, "Driver": "bridge", "IPAM": {"Config": pools}})[0] == 201
    )
    daemon.docker("run", "-d", "--name", name, "--network", name, "--ip", "10.215.79.35", "busybox", "sleep", "600")
    found = [daemon.inspect(name)["NetworkSettings"]["Networks"][name]["IPAddress"]]
    for number in range(3):
        daemon.docker("run", "-d", "--name", f"{name}{number}", "--network", name, "busybox", "sleep", "600")
        found.append(daemon.inspect(f"{name}{number}")["NetworkSettings"]["Networks"][name]["IPAddress"])
    assert found == ["10.215.79.35", "10.215.79.4", "10.215.79.5", "10.215.79.40"]
    # Neighbours all the same.
    assert "1 packets received" in daemon.docker("exec", f"{name}0", "ping", "-c1", "-w20", "10.215.79.4")
    assert daemon.docker("exec", name, "ip", "route").startswith("default via 10.215.79.33")
