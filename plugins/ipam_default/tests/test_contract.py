"""The conformance kit on this driver."""

from __future__ import annotations

from wharfie.kit import IpamContract


class TestDefault(IpamContract):
    driver = "ipam.default"
