"""The keys of daemon.json about the default network, and about stopping, do what they say."""

from __future__ import annotations

import json
import os
import time


def test_both_families_and_their_ranges(make_daemon):
    net = 240 + os.getpid() % 10
    config = {
        "ipv6": True,
        "bip6": f"fd00:{net}::1/64",
        "fixed-cidr-v6": f"fd00:{net}::100/120",
        "fixed-cidr": "",
        "default-stop-timeout": 1,
    }
    daemon = make_daemon(config=config, busybox=True)
    pools = {pool["Subnet"]: pool for pool in _bridge(daemon)["IPAM"]["Config"]}
    assert pools.keys() == {daemon.subnet, f"fd00:{net}::/64"}
    assert pools[f"fd00:{net}::/64"]["IPRange"] == f"fd00:{net}::100/120"
    addresses = daemon.docker("run", "--rm", "busybox", "ip", "addr", "show", "eth0")
    assert f"inet6 fd00:{net}::1" in addresses

    first = _bridge(daemon)["Id"]
    daemon.stop()
    daemon.start()
    assert _bridge(daemon)["Id"] == first, "nothing was changed, so the network stays"
    daemon.stop()
    daemon.config["fixed-cidr-v6"] = f"fd00:{net}::200/120"
    daemon.start()
    assert _bridge(daemon)["Id"] != first

    daemon.docker("run", "-d", "--name", "deaf", "busybox", "sh", "-c", "trap '' TERM; while :; do sleep 1; done")
    began = time.monotonic()
    daemon.docker("stop", "deaf")
    assert time.monotonic() - began < 8
    assert daemon.inspect("deaf")["State"]["ExitCode"] == 137


def _bridge(daemon):
    return json.loads(daemon.docker("network", "inspect", "bridge"))[0]
