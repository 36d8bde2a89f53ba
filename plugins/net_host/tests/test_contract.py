"""The conformance kit on this driver."""

from __future__ import annotations

from wharfie.kit import NetworkContract


class TestHost(NetworkContract):
    driver = "network.host"


class TestNull(NetworkContract):
    driver = "network.null"
