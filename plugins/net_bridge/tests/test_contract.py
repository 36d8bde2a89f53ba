"""The conformance kit on this driver."""

from __future__ import annotations

from wharfie.kit import NetworkContract


class TestBridge(NetworkContract):
    driver = "network.bridge"
    bad_option = {"com.docker.network.driver.mtu": "wide"}
