"""The keys of daemon.json about the default network, and about stopping, do what they say."""

from __future__ import annotations

import json
import os
import time

from tests.harness import import_busybox

_SLEEP = ("busybox", "sleep", "600")


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


def test_another_router_and_other_settings(make_daemon):
    daemon = make_daemon(start=False)
    router = daemon.gateway.removesuffix(".1") + ".9"
    daemon.config |= {
        "default-gateway": router,
        "icc": False,
        "ip-masq": False,
        "mtu": 1400,
        "default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1300"}},
    }
    daemon.start()
    import_busybox(daemon)
    shown = _bridge(daemon)
    assert shown["IPAM"]["Config"][0]["AuxiliaryAddresses"] == {"DefaultGatewayIPv4": router}
    option = "com.docker.network.bridge.enable_"
    assert (shown["Options"][option + "icc"], shown["Options"][option + "ip_masquerade"]) == ("false", "false")
    daemon.docker("network", "create", "other")
    daemon.docker("run", "-d", "--name", "one", *_SLEEP)
    daemon.docker("network", "connect", "other", "one")
    said = daemon.docker("exec", "one", "ip", "addr")
    assert "mtu 1400" in said.partition("eth0")[2].splitlines()[0]
    assert "mtu 1300" in said.partition("eth1")[2].splitlines()[0]
    assert daemon.docker("exec", "one", "ip", "route").startswith(f"default via {router} dev eth0")
    daemon.docker("run", "-d", "--name", "two", *_SLEEP)
    address = daemon.docker("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", "two")
    assert "0 packets received" in daemon.run_docker("exec", "one", "ping", "-c1", "-W1", address).stdout.decode()


def _bridge(daemon):
    return json.loads(daemon.docker("network", "inspect", "bridge"))[0]
