"""`plan`: what a network's options may say, and what is filled in."""

from __future__ import annotations

import logging
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from pydantic import ValidationError
from wharfie_net_bridge.driver import BridgeDriver
from wharfie_net_bridge.options import parse
from wharfie_net_bridge.settings import BridgeSettings

from wharfie.spi.driver import Context, HostFacts
from wharfie.spi.errors import InvalidArgument
from wharfie.spi.network import Network, NetworkCapability

BRIDGE = "com.docker.network.bridge."


def make(**settings: object) -> BridgeDriver:
    context = Context(
        state=Path("unused"),
        run=Path("unused"),
        instance="0b5e55ed",
        log=logging.getLogger("test"),
        host=HostFacts(kernel=(6, 1), architecture="amd64", cgroup="v2", cpus=2, memory=1 << 30),
        emit=lambda event: None,
    )
    return BridgeDriver(context, BridgeSettings.model_validate(settings))


def draft(**given: object) -> Network:
    return Network(**{"id": "0123456789abcdef" * 4, "name": "net", **given})


def test_defaults_are_filled_in_and_the_rest_is_kept():
    given = draft(options={"com.docker.network.enable_ipv6": "false", "acme": "x"})
    planned = make(mtu=1400).plan(given)
    assert planned.options == {
        "com.docker.network.enable_ipv6": "false",
        "acme": "x",
        BRIDGE + "name": "br-0123456789ab",
        "com.docker.network.driver.mtu": "1400",
    }
    assert planned.needs_gateway
    assert make(mtu=9000).plan(planned) == planned, "a stored network is complete: later settings do not change it"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        (BRIDGE + "name", "sixteen-letters-"),
        (BRIDGE + "name", "br/0"),
        (BRIDGE + "name", "br 0"),
        (BRIDGE + "name", '"; drop'),
        (BRIDGE + "name", "br*"),
        (BRIDGE + "name", ".."),
        (BRIDGE + "enable_icc", "yes"),
        (BRIDGE + "enable_ip_masquerade", "2"),
        (BRIDGE + "default_bridge", "maybe"),
        (BRIDGE + "inhibit_ipv4", "-"),
        (BRIDGE + "host_binding_ipv4", "::1"),
        (BRIDGE + "host_binding_ipv4", "localhost"),
        (BRIDGE + "gateway_mode_ipv4", "bridge"),
        (BRIDGE + "gateway_mode_ipv6", "NAT"),
        (BRIDGE + "gateway_mode_ipv4", "isolated"),
        (BRIDGE + "trusted_host_interfaces", "eth0:eth/1"),
        ("com.docker.network.host_ipv4", "10.0.0.256"),
        ("com.docker.network.driver.mtu", "67"),
        ("com.docker.network.driver.mtu", "65536"),
        ("com.docker.network.driver.mtu", "15o0"),
        ("com.docker.network.driver.mtu", "²"),
    ],
)
def test_a_bad_value_is_refused_and_named(option, value):
    with pytest.raises(InvalidArgument) as caught:
        make().plan(draft(options={option: value}))
    assert option in caught.value.message


def test_all_options():
    options = parse(
        draft(
            internal=True,
            options={
                BRIDGE + "name": "br_X.1@a",
                BRIDGE + "enable_icc": "false",
                BRIDGE + "enable_ip_masquerade": "0",
                BRIDGE + "inhibit_ipv4": "true",
                BRIDGE + "gateway_mode_ipv4": "routed",
                BRIDGE + "gateway_mode_ipv6": "isolated",
                BRIDGE + "trusted_host_interfaces": "eth0:eth1",
                BRIDGE + "host_binding_ipv4": "127.0.0.1",
                "com.docker.network.host_ipv4": "10.213.1.9",
                "com.docker.network.driver.mtu": "9000",
            },
        ),
        1500,
    )
    assert (options.bridge, options.mtu, options.icc, options.masquerade, options.inhibit_ipv4) == (
        "br_X.1@a",
        9000,
        False,
        False,
        True,
    )
    assert (options.gateway_mode(4), options.gateway_mode(6)) == ("routed", "isolated")
    assert (options.host_ipv4, options.trusted) == (IPv4Address("10.213.1.9"), ("eth0", "eth1"))


def test_a_network_without_gateway_needs_none():
    mode4, mode6 = BRIDGE + "gateway_mode_ipv4", BRIDGE + "gateway_mode_ipv6"
    assert not make().plan(draft(internal=True, options={mode4: "isolated"})).needs_gateway
    assert make().plan(draft(internal=True, ipv6=True, options={mode4: "isolated"})).needs_gateway
    assert not make().plan(draft(internal=True, ipv6=True, options={mode4: "isolated", mode6: "isolated"})).needs_gateway


def test_capabilities():
    assert make().capabilities() == {
        NetworkCapability.PUBLISH,
        NetworkCapability.NAMESPACE,
        NetworkCapability.MULTIPLE,
        NetworkCapability.ADDRESSES,
    }


def test_settings_that_cannot_be_right():
    marks = ("x", "1/2/3", "-1", "1/", "0x1ffffffff", "1_0", "²")
    for bad in (
        {"mtu": 10},
        {"ip-forward": "perhaps"},
        {"iptable": True},
        *({"bridge-accept-fwmark": mark} for mark in marks),
    ):
        with pytest.raises(ValidationError):
            make(**bad)


@pytest.mark.parametrize(
    ("text", "mark"), [("", None), ("5", (5, 0xFFFFFFFF)), ("0x10/0xF0", (16, 240)), ("010/255", (10, 255))]
)
def test_marks(text, mark):
    assert BridgeSettings.model_validate({"bridge-accept-fwmark": text}).mark == mark
