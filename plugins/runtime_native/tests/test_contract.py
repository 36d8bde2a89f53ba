"""The conformance kit on this driver."""

from __future__ import annotations

from wharfie.kit import RuntimeContract


class TestNative(RuntimeContract):
    driver = "runtime.native"
