"""The conformance kit on this driver."""

from __future__ import annotations

from wharfie.kit import RegistryContract


class TestPlain(RegistryContract):
    driver = "registry.plain"
