"""The packages by strangers, which the documentation quotes, keep the rules."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from wharfie.kit import NetworkContract, VolumeContract

sys.path.append(str(Path(__file__).parents[1] / "strangers/wharfie-acme"))

from wharfie_acme.network import AcmeNetworks
from wharfie_acme.settings import AcmeSettings
from wharfie_acme.volume import AcmeVolumes

_MODULES = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "wharfie_acme"}


@pytest.fixture(autouse=True)
def modules(monkeypatch):
    """Tests of the loader forget the package, to import it anew; here it is what was imported above."""
    for name, module in _MODULES.items():
        monkeypatch.setitem(sys.modules, name, module)


class TestAcmeVolumes(VolumeContract):
    driver = lambda context: AcmeVolumes(context, AcmeSettings())  # noqa: E731
    other_options = {"owner": "1000:1000"}


class TestAcmeNetworks(NetworkContract):
    driver = lambda context: AcmeNetworks(context, None)  # noqa: E731
    bad_option = {"color": "blue"}
