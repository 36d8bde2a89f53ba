"""Networks by a legacy plugin: its interface really moves, and really comes back."""

from __future__ import annotations

import json
import socket
import subprocess
import uuid
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from wharfie.shim.netns import within
from wharfie.spi.driver import ContainerFacts
from wharfie.spi.errors import Conflict, DriverError, NotFound, WharfieError
from wharfie.spi.network import Endpoint, Joined, Network, NetworkCapability, Pool, Port, Sandbox

SUBNET = "10.196.1.0/24"


def ip(*words, namespace=None):
    command = ["ip", *(["-n", namespace] if namespace else []), "-j", *words]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(text or "[]")


def link_names(namespace=None):
    return {link["ifname"] for link in ip("link", namespace=namespace)}


@pytest.fixture
def server(plugins):
    server = plugins("net", "NetworkDriver")
    yield server
    for name in link_names():
        if name.startswith(("wl", "vl", "vc")) and name[2:] in {NETWORK_ID[:10], ENDPOINT_ID[:10]}:
            subprocess.run(["ip", "link", "delete", name], capture_output=True)


@pytest.fixture
def driver(server, make):
    return make("network", "net")


@pytest.fixture
def namespace():
    name = f"wl-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.fixture
def sandbox(namespace):
    return Sandbox(id="s", path=Path("/run/netns", namespace))


NETWORK_ID = uuid.uuid4().hex * 2
ENDPOINT_ID = uuid.uuid4().hex * 2


def network(**options):
    pool = Pool(subnet=ip_network(SUBNET), gateway=ip_address("10.196.1.1"), auxiliary={"printer": "10.196.1.9"})
    return Network(id=NETWORK_ID, name="backbone", pools=(pool,), options=options)


def endpoint(**changes):
    fields = {
        "id": ENDPOINT_ID,
        "network_id": NETWORK_ID,
        "container": ContainerFacts(id="c" * 64, name="web"),
        "interface": "eth0",
        "mac": "02:42:0a:c4:01:07",
        "addresses": (ip_interface("10.196.1.7/24"),),
        "default_route4": True,
    }
    return Endpoint(**(fields | changes))


def test_what_the_plugin_is_told_of_a_network(driver, server):
    assert driver.capabilities() == {
        NetworkCapability.NAMESPACE,
        NetworkCapability.MULTIPLE,
        NetworkCapability.ADDRESSES,
        NetworkCapability.PUBLISH,
    }
    driver.create_network(network(color="red"))
    driver.create_network(network(color="red"))
    ((_, asked),) = server.calls("CreateNetwork")
    assert asked["NetworkID"] == NETWORK_ID
    assert asked["Options"]["com.docker.network.generic"] == {"color": "red"}
    assert asked["Options"]["com.docker.network.enable_ipv6"] is False
    assert asked["IPv4Data"] == [
        {
            "AddressSpace": "LocalDefault",
            "Pool": SUBNET,
            "Gateway": "10.196.1.1/24",
            "AuxAddresses": {"printer": "10.196.1.9/24"},
        }
    ]
    assert "wl" + NETWORK_ID[:10] in link_names()
    driver.delete_network(network())
    driver.delete_network(network())
    assert "wl" + NETWORK_ID[:10] not in link_names()
    assert len(server.calls("DeleteNetwork")) == 1


def test_who_needs_no_gateway_says_so(driver, plugins, make):
    assert driver.plan(network(nogateway="yes")).needs_gateway is False
    assert driver.plan(network()).needs_gateway is True
    plugins("old", "NetworkDriver", "--without", "GwAllocCheck")
    assert make("network", "old").plan(network(nogateway="yes")).needs_gateway is True


def test_the_interface_moves_in_and_back(driver, server, sandbox, namespace):
    driver.create_network(network())
    attachment = driver.join(network(), endpoint(), sandbox)
    assert (attachment.interface, attachment.mac) == ("eth0", "02:42:0a:c4:01:07")
    assert str(attachment.gateway4) == "10.196.1.1"
    source = "vc" + ENDPOINT_ID[:10]
    assert source not in link_names()
    (link,) = ip("address", "show", "eth0", namespace=namespace)
    assert link["operstate"] == "UP"
    assert link["address"] == "02:42:0a:c4:01:07"
    assert [address["local"] for address in link["addr_info"]] == ["10.196.1.7"]
    routes = {route["dst"]: route.get("gateway") for route in ip("route", namespace=namespace)}
    assert routes == {
        "default": "10.196.1.1",
        SUBNET: None,
        "10.199.1.0/24": None,
        "10.199.2.0/24": "10.196.1.1",
    }
    with socket.create_server(("10.196.1.1", 0)) as listener:
        port = listener.getsockname()[1]
        within(sandbox.path, lambda: socket.create_connection(("10.196.1.1", port), 5).close())
    ((_, asked),) = server.calls("CreateEndpoint")
    assert asked["Interface"] == {"Address": "10.196.1.7/24", "AddressIPv6": "", "MacAddress": "02:42:0a:c4:01:07"}
    ((_, asked),) = server.calls("Join")
    assert asked["SandboxKey"] == str(sandbox.path)

    joined = Joined(endpoint=endpoint(), sandbox=sandbox, attachment=attachment)
    assert driver.describe(network(), joined) == {"near": "vl" + ENDPOINT_ID[:10]}
    driver.leave(network(), joined)
    driver.leave(network(), joined)
    order = [
        method.partition(".")[2] for method, _ in server.calls("Leave", "DeleteEndpoint", "RevokeExternalConnectivity")
    ]
    assert order == ["RevokeExternalConnectivity", "Leave", "DeleteEndpoint"]
    assert link_names(namespace) == {"lo"}
    assert "vl" + ENDPOINT_ID[:10] not in link_names()


def test_the_mac_is_the_plugins_when_nobody_chose_one_and_so_is_the_prefix(driver, sandbox, namespace):
    driver.create_network(network(prefix="wan"))
    attachment = driver.join(network(prefix="wan"), endpoint(mac=""), sandbox)
    assert (attachment.interface, attachment.mac) == ("wan0", "02:11:22:33:44:55")
    assert link_names(namespace) == {"lo", "wan0"}


def test_a_repeated_join_changes_only_the_default_route(driver, server, sandbox, namespace, make):
    driver.create_network(network())
    first = driver.join(network(), endpoint(), sandbox)
    for other in (driver, make("network", "net")):
        assert other.join(network(), endpoint(default_route4=False), sandbox) == first
        assert "default" not in {route["dst"] for route in ip("route", namespace=namespace)}
        assert other.join(network(), endpoint(), sandbox) == first
        assert "default" in {route["dst"] for route in ip("route", namespace=namespace)}
    assert len(server.calls("Join")) == 1


def test_the_end_of_a_sandbox_takes_the_interface_along(driver, server, sandbox, namespace):
    driver.create_network(network())
    attachment = driver.join(network(), endpoint(), sandbox)
    driver.leave(network(), Joined(endpoint=endpoint(), sandbox=None, attachment=attachment))
    assert server.calls("DeleteEndpoint")
    assert "vl" + ENDPOINT_ID[:10] not in link_names()


def test_ports(driver, server, sandbox):
    driver.create_network(network())
    attachment = driver.join(network(), endpoint(), sandbox)
    port = Port(protocol="tcp", container_port=80, host_address=ip_address("0.0.0.0"), host_port=8080)
    joined = Joined(endpoint=endpoint(), sandbox=sandbox, attachment=attachment, ports=(port,))
    driver.publish(network(), joined)
    _, asked = server.calls("ProgramExternalConnectivity")[-1]
    assert asked["Options"]["com.docker.network.endpoint.exposedports"] == [{"Proto": 6, "Port": 80}]
    assert asked["Options"]["com.docker.network.portmap"] == [
        {"Proto": 6, "IP": "10.196.1.7", "Port": 80, "HostIP": "0.0.0.0", "HostPort": 8080, "HostPortEnd": 8080}
    ]
    driver.unpublish(network(), joined)
    assert server.calls("RevokeExternalConnectivity", "ProgramExternalConnectivity")[-1][0].endswith(
        "RevokeExternalConnectivity"
    )


def test_methods_that_are_newer_than_the_plugin(plugins, make, sandbox, server):
    flags = [
        flag
        for name in ("ProgramExternalConnectivity", "RevokeExternalConnectivity", "EndpointOperInfo")
        for flag in ("--without", name)
    ]
    old = plugins("old", "NetworkDriver", *flags)
    driver = make("network", "old")
    driver.create_network(network())
    attachment = driver.join(network(), endpoint(), sandbox)
    joined = Joined(endpoint=endpoint(), sandbox=sandbox, attachment=attachment)
    driver.publish(network(), joined)
    driver.unpublish(network(), joined)
    assert driver.describe(network(), joined) == {}
    driver.leave(network(), joined)
    driver.delete_network(network())
    assert old.calls("DeleteNetwork")


def test_a_failed_join_leaves_nothing(driver, server, sandbox, namespace):
    driver.create_network(network(failjoin="yes"))
    with pytest.raises(DriverError, match=r"NetworkDriver.Join: told to fail"):
        driver.join(network(), endpoint(), sandbox)
    assert link_names(namespace) == {"lo"}
    assert "vl" + ENDPOINT_ID[:10] not in link_names()
    assert server.calls("DeleteEndpoint")


def test_a_sandbox_that_is_gone(driver, server, sandbox):
    driver.create_network(network())
    with pytest.raises(NotFound, match="namespace is gone"):
        driver.join(network(), endpoint(), replace(sandbox, path=Path("/run/netns/none")))
    assert not {name for name in link_names() if ENDPOINT_ID[:10] in name}


def test_an_address_that_cannot_be_set_brings_the_interface_back(driver, server, sandbox, namespace):
    subprocess.run(["ip", "-n", namespace, "link", "add", "eth0", "type", "bridge"], check=True)
    driver.create_network(network())
    with pytest.raises(Conflict, match="has an interface"):
        driver.join(network(), endpoint(), sandbox)
    bad = endpoint(mac="ff:ff:ff:ff:ff:ff", interface="eth1")  # a broadcast address is none of an interface
    with pytest.raises(WharfieError, match="the kernel refused"):
        driver.join(network(), bad, sandbox)
    assert link_names(namespace) == {"lo", "eth0"}
    assert not {name for name in link_names() if ENDPOINT_ID[:10] in name}


def test_what_a_killed_daemon_left(driver, server, sandbox, make):
    driver.create_network(network())
    driver.join(network(), endpoint(), sandbox)
    again = make("network", "net")
    again.create_network(network())  # the plugin remembers it
    assert again.reconcile([network()], []) == []
    assert len(server.calls("CreateNetwork")) == 1
    assert server.calls("DeleteEndpoint")
    assert not {name for name in link_names() if ENDPOINT_ID[:10] in name}
    assert again.reconcile([], []) == []
    assert server.calls("DeleteNetwork") == []  # only the user deletes a network

    again._networks[NETWORK_ID] = "making"  # killed before the plugin's answer came
    third = make("network", "net")
    assert third.reconcile([], []) == []
    assert len(server.calls("DeleteNetwork")) == 1
    third.create_network(network())
    third._networks[NETWORK_ID] = "making"
    third.create_network(network())
    assert "wl" + NETWORK_ID[:10] in link_names()


def test_a_refused_network_is_not_remembered(driver, server):
    with pytest.raises(DriverError, match="told to fail"):
        driver.create_network(network(fail="yes"))
    driver.delete_network(network())
    assert server.calls("DeleteNetwork") == []
