"""The conformance kit on these drivers."""

from __future__ import annotations

import pytest
from wharfie_net_macvlan.parent import makes

from wharfie.kit import NetworkContract


class TestMacvlan(NetworkContract):
    driver = "network.macvlan"
    options = {"parent": "kit0"}
    bad_option = {"macvlan_mode": "sideways"}


@pytest.mark.skipif(not makes("ipvlan"), reason="this kernel has no ipvlan")
class TestIpvlan(NetworkContract):
    driver = "network.ipvlan"
    options = {"parent": "kit0"}
    bad_option = {"ipvlan_mode": "sideways"}
