"""The driver `reserved`: who gets which address, and what a file may not say."""

from __future__ import annotations

import json
import logging
import os
from ipaddress import ip_address, ip_network

import pytest
from wharfie_ipam_reserved.driver import ReservedDriver
from wharfie_ipam_reserved.file import read
from wharfie_ipam_reserved.settings import ReservedSettings

from wharfie.spi.driver import Context, HostFacts
from wharfie.spi.errors import Conflict, Forbidden, InvalidArgument, NotFound, OutOfSpace, Unavailable
from wharfie.spi.ipam import CONTAINER_NAME, GATEWAY_REQUEST, PoolLease, PoolRequest

OFFICE = """
[[pools]]
subnet = "10.20.0.0/24"
ranges = ["10.20.0.0-10.20.0.3", "10.20.0.50/31", "10.20.0.99"]
[pools.hosts]
web = "10.20.0.50"
mail = "10.20.0.200"

[[pools]]
subnet = "fd00:20::/64"
gateway = "fd00:20::ffff"
ranges = ["fd00:20::10-fd00:20::1:0000"]
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "addresses.toml"
    path.write_text(OFFICE)
    return path


@pytest.fixture
def driver(tmp_path):
    return make_driver(tmp_path)


def make_driver(folder, **settings):
    facts = HostFacts(kernel=(6, 1), architecture="amd64", cgroup="v1", cpus=2, memory=1 << 30)
    log = logging.getLogger("ipam")
    context = Context(state=folder, run=folder, instance="0" * 8, log=log, host=facts, emit=lambda event: None)
    return ReservedDriver(context, ReservedSettings(**settings))


def pool(driver, path, **request):
    return driver.request_pool(PoolRequest(options={"file": str(path)}, **request))


def take(driver, lease, name="", wanted=None):
    options = {CONTAINER_NAME: name} if name else {}
    return str(driver.request_address(lease.id, ip_address(wanted) if wanted else None, options).interface)


def test_names_have_their_addresses_and_others_get_the_rest(driver, path):
    lease = pool(driver, path)
    assert (lease.subnet, lease.data) == (ip_network("10.20.0.0/24"), {"file": str(path)})
    assert str(driver.request_address(lease.id, None, GATEWAY_REQUEST).interface) == "10.20.0.1/24"
    assert take(driver, lease, "web") == "10.20.0.50/24"
    assert take(driver, lease, "mail") == "10.20.0.200/24"
    with pytest.raises(Conflict, match="Address already in use"):
        take(driver, lease, "web")
    # The network's own address and the gateway, which is taken, are in the ranges, and so is web's.
    assert [take(driver, lease, "x") for _ in range(4)] == [
        "10.20.0.2/24",
        "10.20.0.3/24",
        "10.20.0.51/24",
        "10.20.0.99/24",
    ]
    with pytest.raises(OutOfSpace, match=r'container "x".*reserves none for this name'):
        take(driver, lease, "x")
    driver.release_address(lease.id, ip_address("10.20.0.3"))
    driver.release_address(lease.id, ip_address("10.20.0.3"))
    assert take(driver, lease) == "10.20.0.3/24"


def test_a_wish_must_be_ones_own_or_open(driver, path):
    lease = pool(driver, path)
    assert take(driver, lease, "web", "10.20.0.50") == "10.20.0.50/24"
    assert take(driver, lease, "x", "10.20.0.99") == "10.20.0.99/24"
    assert take(driver, lease, "mail", "10.20.0.2") == "10.20.0.2/24"
    for name, wanted, kind, words in (
        ("x", "10.20.0.200", Conflict, "reserved for mail"),
        ("x", "10.20.0.99", Conflict, "already in use"),
        ("x", "10.20.0.77", InvalidArgument, "not among the addresses"),
        ("x", "10.21.0.1", InvalidArgument, "out of range"),
    ):
        with pytest.raises(kind, match=words):
            take(driver, lease, name, wanted)
    with pytest.raises(Conflict, match="cannot be the gateway"):
        driver.request_address(lease.id, ip_address("10.20.0.200"), GATEWAY_REQUEST)
    assert driver.request_address(lease.id, ip_address("10.20.0.254"), GATEWAY_REQUEST).interface


def test_ipv6_and_a_named_gateway(driver, path):
    lease = pool(driver, path, family=6)
    assert str(driver.request_address(lease.id, None, GATEWAY_REQUEST).interface) == "fd00:20::ffff/64"
    assert take(driver, lease) == "fd00:20::10/64"


def test_a_pool_is_held_once(driver, path):
    lease = pool(driver, path)
    with pytest.raises(Forbidden, match="overlaps"):
        pool(driver, path)
    driver.release_pool(lease.id)
    driver.release_pool(lease.id)
    with pytest.raises(NotFound):
        take(driver, lease)
    driver.release_address(lease.id, ip_address("10.20.0.2"))
    assert pool(driver, path).id == lease.id


def test_a_subnet_that_the_host_uses_has_to_be_named(driver, path):
    avoid = (ip_network("10.0.0.0/8"),)
    with pytest.raises(Forbidden, match="--subnet"):
        pool(driver, path, avoid=avoid)
    assert pool(driver, path, avoid=avoid, subnet=ip_network("10.20.0.0/24")).subnet == ip_network("10.20.0.0/24")
    with pytest.raises(InvalidArgument, match=r"has no subnet 10.21.0.0/24; it has 10.20.0.0/24"):
        pool(driver, path, subnet=ip_network("10.21.0.0/24"))


def test_an_ip_range_narrows_the_ranges_and_not_the_names(driver, path):
    lease = pool(driver, path, subnet=ip_network("10.20.0.0/24"), ip_range=ip_network("10.20.0.96/28"))
    assert take(driver, lease) == "10.20.0.99/24"
    assert take(driver, lease, "web") == "10.20.0.50/24"
    with pytest.raises(InvalidArgument, match="invalid ip-range"):
        pool(make_driver(path.parent), path, subnet=ip_network("10.20.0.0/24"), ip_range=ip_network("10.0.0.0/8"))


def test_after_a_start_what_is_taken_stays_taken(driver, path, tmp_path):
    lease = pool(driver, path)
    take(driver, lease, "web")
    kept = PoolLease(
        id=lease.id, subnet=lease.subnet, addresses=(ip_address("10.20.0.1"), ip_address("10.20.0.2")), data=lease.data
    )
    again = make_driver(tmp_path)
    assert again.reconcile([kept]) == ()
    assert take(again, kept, "web") == "10.20.0.50/24"
    assert take(again, kept) == "10.20.0.3/24"
    again.reconcile([])
    with pytest.raises(NotFound):
        take(again, kept)


def test_the_file_is_read_for_each_address(driver, path):
    lease = pool(driver, path)
    path.write_text(OFFICE.replace('web = "10.20.0.50"', 'web = "10.20.0.60"'))
    assert take(driver, lease, "web") == "10.20.0.60/24"
    path.write_text("[[pools]]\nsubnet = '10.99.0.0/24'\n")
    with pytest.raises(Conflict, match=r"has no pool 10.20.0.0/24 any more"):
        take(driver, lease, "mail")
    path.unlink()
    with pytest.raises(Unavailable, match="No such file"):
        take(driver, lease, "mail")
    driver.release_pool(lease.id)


@pytest.mark.parametrize(
    ("options", "words"),
    [({}, "no absolute path"), ({"file": "x.toml"}, "no absolute path"), ({"fail": "x"}, 'unknown option "fail"')],
)
def test_options(driver, options, words):
    with pytest.raises(InvalidArgument, match=words):
        driver.request_pool(PoolRequest(options=options))


def test_the_file_of_daemon_json_and_json(tmp_path, path):
    other = tmp_path / "addresses.json"
    other.write_text(json.dumps({"pools": [{"subnet": "10.30.0.0/30", "ranges": ["10.30.0.0/30"]}]}))
    driver = make_driver(tmp_path, file=str(other))
    lease = driver.request_pool(PoolRequest())
    assert str(driver.request_address(lease.id, None, GATEWAY_REQUEST).interface) == "10.30.0.1/30"
    assert take(driver, lease) == "10.30.0.2/30"
    with pytest.raises(OutOfSpace):
        take(driver, lease)
    assert pool(driver, path).subnet == ip_network("10.20.0.0/24")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[pools", "Expected"),
        ("", "pools"),
        ("[[pools]]\n", "pools.0.subnet"),
        ('[[pools]]\nsubnet = "10.0.0.1/24"\n', "subnet"),
        ('[[pools]]\nsubnet = "10.0.0.0/24"\nrange = []\n', "pools.0.range"),
        ('[[pools]]\nsubnet = "10.0.0.0/24"\ngateway = "10.0.1.1"\n', "gateway 10.0.1.1 is not in"),
        ('[[pools]]\nsubnet = "10.0.0.0/24"\nranges = ["10.0.0.9-10.0.0.3"]\n', "ends before it begins"),
        ('[[pools]]\nsubnet = "10.0.0.0/24"\nranges = ["10.0.0.9-10.0.1.3"]\n', "is not in 10.0.0.0/24"),
        ('[[pools]]\nsubnet = "10.0.0.0/24"\nranges = ["x"]\n', "pools.0.ranges"),
        ('[[pools]]\nsubnet = "10.0.0.0/24"\nhosts = {a = "10.0.1.1"}\n', "the address of a, 10.0.1.1"),
        ('[[pools]]\nsubnet = "10.0.0.0/24"\nhosts = {a = "10.0.0.5", b = "10.0.0.5"}\n', "for b and for a"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_the_place(path, text, words):
    path.write_text(text)
    with pytest.raises(InvalidArgument) as caught:
        read(str(path))
    assert str(path) in caught.value.message
    assert words in caught.value.message


def test_a_file_that_is_none_holds_nobody(path):
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InvalidArgument, match="no regular file"):
        read(str(path))
    with pytest.raises(InvalidArgument, match=r"no regular file|larger than"):
        read("/dev/zero")
