"""The conformance kit on this driver."""

from __future__ import annotations

from wharfie.kit import NetworkContract


class TestMacvlan(NetworkContract):
    driver = "network.macvlan"
    options = {"parent": "kit0"}
    bad_option = {"macvlan_mode": "sideways"}
