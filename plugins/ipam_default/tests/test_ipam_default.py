"""The IPAM driver `default`: what it hands out, what it refuses, what it remembers."""

from __future__ import annotations

import logging
import threading
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_interface, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from wharfie_ipam_default.driver import PoolsDriver
from wharfie_ipam_default.settings import AddressPool, IpamSettings
from wharfie_ipam_default.subnets import free_subnet

from wharfie.spi.driver import Context, HostFacts
from wharfie.spi.errors import Conflict, Forbidden, InvalidArgument, NotFound, OutOfSpace
from wharfie.spi.ipam import GATEWAY_REQUEST, PoolLease, PoolRequest


def make(instance: str = "0123abcd", **settings: object) -> PoolsDriver:
    context = Context(
        state=Path("unused"),
        run=Path("unused"),
        instance=instance,
        log=logging.getLogger("test"),
        host=HostFacts(kernel=(6, 1), architecture="amd64", cgroup="v2", cpus=2, memory=1 << 30),
        emit=lambda event: None,
    )
    return PoolsDriver(context, IpamSettings.model_validate(settings))


def test_dockers_pools_in_dockers_order_then_exhaustion():
    driver = make()
    subnets = [driver.request_pool(PoolRequest()).subnet for _ in range(31)]
    assert subnets[:2] == [IPv4Network("172.17.0.0/16"), IPv4Network("172.18.0.0/16")]
    assert subnets[14:16] == [IPv4Network("172.31.0.0/16"), IPv4Network("192.168.0.0/20")]
    assert subnets[-1] == IPv4Network("192.168.240.0/20")
    with pytest.raises(OutOfSpace, match="all predefined address pools have been fully subnetted"):
        driver.request_pool(PoolRequest())
    driver.release_pool("local/172.19.0.0/16")
    assert driver.request_pool(PoolRequest()).subnet == IPv4Network("172.19.0.0/16")


def test_choice_avoids_what_the_host_uses():
    avoid = (IPv4Network("172.16.0.0/14"), IPv4Network("172.20.255.128/25"), IPv6Network("fd00::/8"))
    assert make().request_pool(PoolRequest(avoid=avoid)).subnet == IPv4Network("172.21.0.0/16")


def test_named_subnet_is_taken_although_it_is_in_avoid():
    subnet = IPv4Network("10.212.0.0/24")
    assert make().request_pool(PoolRequest(subnet=subnet, avoid=(subnet,))).subnet == subnet


@pytest.mark.parametrize("subnet", ["10.212.0.0/24", "10.212.0.128/25", "10.0.0.0/8"])
def test_overlap_is_forbidden_in_dockers_words(subnet):
    driver = make()
    driver.request_pool(PoolRequest(subnet=IPv4Network("10.212.0.0/24")))
    with pytest.raises(Forbidden) as caught:
        driver.request_pool(PoolRequest(subnet=IPv4Network(subnet)))
    assert caught.value.message == "Pool overlaps with other one on this address space"
    assert driver.request_pool(PoolRequest(space="global", subnet=IPv4Network(subnet))).id == f"global/{subnet}"


def test_pool_requests_that_cannot_be_right():
    driver = make()
    subnet = IPv4Network("10.212.0.0/24")
    for request in (
        PoolRequest(space="mars"),
        PoolRequest(family=6, subnet=subnet),
        PoolRequest(subnet=subnet, ip_range=IPv4Network("10.212.1.0/25")),
        PoolRequest(subnet=subnet, ip_range=IPv6Network("fd00::/64")),
        PoolRequest(ip_range=IPv4Network("10.212.0.0/25")),
    ):
        with pytest.raises(InvalidArgument):
            driver.request_pool(request)
    assert driver.request_pool(PoolRequest(subnet=subnet)).subnet == subnet, "a refused request holds nothing"


def test_addresses_lowest_first_gateway_first():
    driver = make()
    pool = driver.request_pool(PoolRequest()).id
    assert driver.request_address(pool, None, GATEWAY_REQUEST).interface == ip_interface("172.17.0.1/16")
    assert driver.request_address(pool, None, {}).interface == ip_interface("172.17.0.2/16")
    assert driver.request_address(pool, IPv4Address("172.17.0.4"), {}).interface == ip_interface("172.17.0.4/16")
    assert driver.request_address(pool, None, {}).interface == ip_interface("172.17.0.3/16")
    assert driver.request_address(pool, None, {}).interface == ip_interface("172.17.0.5/16")
    driver.release_address(pool, IPv4Address("172.17.0.2"))
    driver.release_address(pool, IPv4Address("172.17.0.2"))
    assert driver.request_address(pool, None, {}).interface == ip_interface("172.17.0.2/16")


def test_gateway_request_with_the_first_address_taken():
    driver = make()
    pool = driver.request_pool(PoolRequest(subnet=IPv4Network("10.212.0.0/24"))).id
    driver.request_address(pool, IPv4Address("10.212.0.1"), {})
    assert driver.request_address(pool, None, GATEWAY_REQUEST).interface == ip_interface("10.212.0.2/24")
    assert driver.request_address(pool, IPv4Address("10.212.0.9"), GATEWAY_REQUEST).interface == ip_interface(
        "10.212.0.9/24"
    )


def test_range_limits_what_is_handed_out_not_what_may_be_asked():
    driver = make()
    lease = driver.request_pool(PoolRequest(subnet=IPv4Network("10.213.7.0/24"), ip_range=IPv4Network("10.213.7.128/30")))
    assert driver.request_address(lease.id, None, GATEWAY_REQUEST).interface == ip_interface("10.213.7.1/24")
    assert driver.request_address(lease.id, IPv4Address("10.213.7.77"), {}).interface == ip_interface("10.213.7.77/24")
    given_out = [driver.request_address(lease.id, None, {}).interface for _ in range(4)]
    assert given_out == [ip_interface(f"10.213.7.{last}/24") for last in range(128, 132)]
    with pytest.raises(OutOfSpace, match="no available IPv4 addresses"):
        driver.request_address(lease.id, None, {})


def test_addresses_that_are_refused():
    driver = make()
    pool = driver.request_pool(PoolRequest(subnet=IPv4Network("10.212.0.0/30"))).id
    driver.request_address(pool, IPv4Address("10.212.0.1"), {})
    with pytest.raises(Conflict, match="Address already in use"):
        driver.request_address(pool, IPv4Address("10.212.0.1"), {})
    for address in ("10.212.0.0", "10.212.0.3", "10.212.0.4", "fd00::1"):
        with pytest.raises(InvalidArgument):
            driver.request_address(pool, ip_address(address), {})
    with pytest.raises(NotFound):
        driver.request_address("local/10.9.0.0/24", None, {})
    driver.release_address("local/10.9.0.0/24", IPv4Address("10.9.0.1"))
    driver.release_pool("local/10.9.0.0/24")


@pytest.mark.parametrize(
    ("subnet", "count"),
    [("10.212.0.0/32", 1), ("10.212.0.0/31", 2), ("10.212.0.0/29", 6), ("fd12::/127", 2), ("fd12::/126", 3)],
)
def test_every_usable_address_is_handed_out_once(subnet, count):
    driver = make()
    network = ip_network(subnet)
    pool = driver.request_pool(PoolRequest(family=network.version, subnet=network)).id
    assert len({driver.request_address(pool, None, {}).interface for _ in range(count)}) == count
    with pytest.raises(OutOfSpace):
        driver.request_address(pool, None, {})


def test_ipv6_subnets_are_private_and_stable():
    first = make("0123abcd").request_pool(PoolRequest(family=6)).subnet
    assert isinstance(first, IPv6Network) and first.is_private and first.prefixlen == 64
    assert make("0123abcd").request_pool(PoolRequest(family=6)).subnet == first
    assert make("ffff0000").request_pool(PoolRequest(family=6)).subnet != first
    driver = make()
    pools = [driver.request_pool(PoolRequest(family=6)) for _ in range(3)]
    assert len({pool.subnet.supernet(new_prefix=48) for pool in pools}) == 1
    assert driver.request_address(pools[1].id, None, GATEWAY_REQUEST).interface.ip == pools[1].subnet[1]
    assert driver.request_address(pools[1].id, None, {}).interface.ip == pools[1].subnet[2]


def test_pools_of_the_operator():
    pools = [{"base": "10.212.0.0/16", "size": 24}, {"base": "fd12::/56", "size": 64}]
    driver = make(**{"default-address-pools": pools})
    assert driver.request_pool(PoolRequest()).subnet == IPv4Network("10.212.0.0/24")
    assert driver.request_pool(PoolRequest()).subnet == IPv4Network("10.212.1.0/24")
    assert driver.request_pool(PoolRequest(family=6)).subnet == IPv6Network("fd12::/64")


@pytest.mark.parametrize(
    "pool",
    [
        {"base": "10.212.0.0/16", "size": 15},
        {"base": "10.212.0.0/16", "size": 33},
        {"base": "10.212.0.1/16", "size": 24},
        {"base": "x"},
    ],
)
def test_pools_that_cannot_be_right(pool):
    with pytest.raises(ValidationError):
        make(**{"default-address-pools": [pool]})


def test_reconcile_is_the_whole_truth():
    driver = make()
    forgotten = driver.request_pool(PoolRequest())
    lease = PoolLease(
        id="local/172.18.0.0/16",
        subnet=IPv4Network("172.18.0.0/16"),
        addresses=(IPv4Address("172.18.0.1"), IPv4Address("172.18.0.2")),
    )
    for _ in range(2):
        assert driver.reconcile([lease]) == []
    with pytest.raises(NotFound):
        driver.request_address(forgotten.id, None, {})
    assert driver.request_address(lease.id, None, {}).interface == ip_interface("172.18.0.3/16")
    with pytest.raises(Conflict):
        driver.request_address(lease.id, IPv4Address("172.18.0.2"), {})
    assert [driver.request_pool(PoolRequest()).subnet.network_address for _ in range(2)] == [
        IPv4Address("172.17.0.0"),
        IPv4Address("172.19.0.0"),
    ]


def test_reconcile_reports_leases_that_overlap():
    leases = [PoolLease(id=f"local/{subnet}", subnet=IPv4Network(subnet)) for subnet in ("10.212.0.0/24", "10.212.0.0/25")]
    assert [fault.object for fault in make().reconcile(leases)] == ["local/10.212.0.0/25"]


def test_threads_never_get_the_same_address():
    driver = make()
    pool = driver.request_pool(PoolRequest()).id
    got: list[object] = []

    def work() -> None:
        got.extend(driver.request_address(pool, None, {}).interface for _ in range(200))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(got)) == 1600


subnets = st.builds(
    lambda number, prefix: IPv4Network((IPv4Address(number >> (32 - prefix) << (32 - prefix)), prefix)),
    st.integers(int(IPv4Address("10.0.0.0")), int(IPv4Address("10.3.255.255"))),
    st.integers(8, 32),
)


@given(taken=st.lists(subnets, max_size=30), size=st.integers(16, 24))
def test_the_free_subnet_is_the_first_that_overlaps_nothing(taken, size):
    pools = [
        AddressPool(base=IPv4Network("10.0.0.0/15"), size=size),
        AddressPool(base=IPv4Network("10.2.0.0/16"), size=size),
    ]
    expected = next(
        (
            candidate
            for pool in pools
            for candidate in pool.base.subnets(new_prefix=size)
            if not any(candidate.overlaps(other) for other in taken)
        ),
        None,
    )
    assert free_subnet(pools, 4, taken) == expected


def test_addresses_of_ipv6_are_ipv6():
    driver = make()
    pool = driver.request_pool(PoolRequest(family=6, subnet=IPv6Network("fd12::/64"))).id
    assert isinstance(driver.request_address(pool, None, {}).interface.ip, IPv6Address)
