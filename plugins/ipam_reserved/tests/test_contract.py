"""The contract of IPAM drivers, with a file that gives every address of many subnets to everybody."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

from wharfie.kit import IpamContract

FILE = Path(tempfile.gettempdir(), f"wharfie-reserved-{os.getpid()}.json")


@pytest.fixture(scope="module", autouse=True)
def _addresses():
    subnets = [f"10.{number}.0.0/24" for number in range(100, 120)] + ["10.101.0.0/29"]
    FILE.write_text(json.dumps({"pools": [{"subnet": subnet, "ranges": [subnet]} for subnet in subnets]}))
    yield
    FILE.unlink()


class TestReserved(IpamContract):
    driver = "ipam.reserved"
    settings = {"file": str(FILE)}
