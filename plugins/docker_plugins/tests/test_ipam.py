"""Addresses by a legacy plugin."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from wharfie.spi.errors import Conflict, DriverError, Forbidden, InvalidArgument, NotFound
from wharfie.spi.ipam import GATEWAY_REQUEST, PoolLease, PoolRequest


@pytest.fixture
def server(plugins):
    return plugins("pools", "IpamDriver")


@pytest.fixture
def driver(server, make):
    return make("ipam", "pools")


def test_the_whole_life_of_a_pool(driver, server):
    assert driver.spaces() == ("near", "far")
    assert driver.capabilities() == frozenset()
    lease = driver.request_pool(PoolRequest(options={"a": "b"}))
    assert (lease.subnet, lease.data) == (ip_network("10.197.0.0/24"), {"owner": "legacy"})
    assert server.calls("RequestPool")[0][1] == {
        "AddressSpace": "near",
        "Pool": "",
        "SubPool": "",
        "Options": {"a": "b"},
        "V6": False,
    }
    assert str(driver.request_address(lease.id, None, GATEWAY_REQUEST).interface) == "10.197.0.1/24"
    assert str(driver.request_address(lease.id, None, {}).interface) == "10.197.0.2/24"
    wanted = ip_address("10.197.0.77")
    assert driver.request_address(lease.id, wanted, {}).interface.ip == wanted
    with pytest.raises(Conflict, match="already in use"):
        driver.request_address(lease.id, wanted, {})
    driver.release_address(lease.id, wanted)
    driver.release_address(lease.id, wanted)
    assert len(server.calls("ReleaseAddress")) == 1
    driver.release_pool(lease.id)
    driver.release_pool(lease.id)
    driver.release_address(lease.id, wanted)
    assert len(server.calls("ReleasePool")) == 1
    with pytest.raises(NotFound):
        driver.request_address(lease.id, None, {})


def test_a_subnet_in_use_is_not_taken_and_not_kept(driver, server):
    lease = driver.request_pool(PoolRequest(avoid=(ip_network("10.197.0.0/23"),)))
    assert lease.subnet == ip_network("10.197.2.0/24")
    assert len(server.calls("ReleasePool")) == 2
    with pytest.raises(Forbidden, match="name one with --subnet"):
        driver.request_pool(PoolRequest(avoid=(ip_network("10.0.0.0/8"),)))
    assert len(server.calls("RequestPool")) - len(server.calls("ReleasePool")) == 1
    wanted = PoolRequest(subnet=ip_network("10.197.9.0/24"), avoid=(ip_network("10.0.0.0/8"),))
    assert driver.request_pool(wanted).subnet == wanted.subnet
    with pytest.raises(Forbidden, match="overlaps"):
        driver.request_pool(wanted)
    with pytest.raises(InvalidArgument, match="cannot find address space"):
        driver.request_pool(PoolRequest(space="nowhere"))
    with pytest.raises(DriverError, match="unknown address space far"):
        driver.request_pool(PoolRequest(space="global"))


def test_a_gateway_that_the_plugin_names_itself(driver, server):
    lease = driver.request_pool(PoolRequest())
    driver.reconcile([PoolLease(id=lease.id, subnet=lease.subnet, data={"com.docker.network.gateway": "10.197.0.254/24"})])
    asked = len(server.calls())
    assert str(driver.request_address(lease.id, None, GATEWAY_REQUEST).interface) == "10.197.0.254/24"
    assert len(server.calls()) == asked


def test_leases_that_hold_are_told_again_and_others_given_back(driver, server, make):
    kept, left = driver.request_pool(PoolRequest()), driver.request_pool(PoolRequest())
    held = driver.request_address(kept.id, None, {}).interface.ip
    lost = driver.request_address(kept.id, None, {}).interface.ip
    (server.state / "calls.jsonl").unlink()
    again = make("ipam", "pools")
    lease = PoolLease(id=kept.id, subnet=kept.subnet, addresses=(held,), data=kept.data)
    faults = again.reconcile([lease])
    assert [asked["Address"] for _, asked in server.calls("ReleaseAddress")] == [str(lost)]
    assert [asked["PoolID"] for _, asked in server.calls("ReleasePool")] == [left.id]
    assert [asked["Pool"] for _, asked in server.calls("RequestPool")] == [str(kept.subnet)]
    assert [asked["Address"] for _, asked in server.calls("RequestAddress")] == [str(held)]
    assert faults == []
    server.stop()
    server.start()
    assert make("ipam", "pools").reconcile([lease]) == []
    with pytest.raises(Conflict):
        make("ipam", "pools").request_address(kept.id, held, {})
