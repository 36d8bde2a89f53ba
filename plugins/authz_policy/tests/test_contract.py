"""The contract of authorization drivers."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from wharfie.kit import AuthzContract
from wharfie.kit.authz import api_request

FILE = Path(tempfile.gettempdir(), f"wharfie-policy-{os.getpid()}.toml")


@pytest.fixture(scope="module", autouse=True)
def _policy():
    FILE.write_text('[[rules]]\nwho = ["tls:ann"]\n[rules.containers]\n')
    yield
    FILE.unlink()


class TestPolicy(AuthzContract):
    driver = "authz.policy"
    settings = {"file": str(FILE)}
    allowed = api_request("GET", "/info", user="ann")
    refused = api_request("POST", "/containers/create", {"HostConfig": {"Privileged": True}}, user="ann")
