"""The conformance kit on this driver."""

from __future__ import annotations

from wharfie.kit import LogContract


class TestJsonFile(LogContract):
    driver = "log.json-file"


class TestLocal(LogContract):
    driver = "log.local"


class TestNone(LogContract):
    driver = "log.none"
