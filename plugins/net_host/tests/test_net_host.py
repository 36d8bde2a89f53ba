"""The drivers `host` and `null`."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from wharfie_net_host.driver import HostDriver, NullDriver

from wharfie.shim.netns import within
from wharfie.spi.driver import ContainerFacts, Context, HostFacts
from wharfie.spi.errors import Forbidden, NotFound, Unsupported
from wharfie.spi.network import Endpoint, Joined, Network, NetworkCapability, Sandbox

CONTEXT = Context(
    state=Path("unused"),
    run=Path("unused"),
    instance="0123abcd",
    log=logging.getLogger("test"),
    host=HostFacts(kernel=(6, 1), architecture="amd64", cgroup="v2", cpus=2, memory=1 << 30),
    emit=lambda event: None,
)
NETWORK = Network(id="a" * 64, name="none", default=True)
ENDPOINT = Endpoint(
    id="e" * 64,
    network_id=NETWORK.id,
    container=ContainerFacts(id="c" * 64, name="web"),
    interface="",
    mac="",
    addresses=(),
)


@pytest.fixture
def sandbox():
    process = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo ready; exec sleep 600"], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    yield Sandbox(id="s", path=Path(f"/proc/{process.pid}/ns/net"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def loopback_answers() -> bool:
    with socket.socket() as server, socket.socket() as client:
        try:
            server.bind(("127.0.0.1", 0))
            server.listen()
            client.connect(server.getsockname())
        except OSError:
            return False
        return True


@pytest.mark.parametrize("driver", [HostDriver(CONTEXT, None), NullDriver(CONTEXT, None)], ids=["host", "null"])
def test_one_network_only(driver):
    assert driver.plan(NETWORK) == NETWORK
    with pytest.raises(Forbidden) as caught:
        driver.plan(Network(id="b" * 64, name="mine"))
    assert caught.value.message == f'only one instance of "{driver.name}" network is allowed'


def test_capabilities():
    assert HostDriver(CONTEXT, None).capabilities() == frozenset()
    assert NullDriver(CONTEXT, None).capabilities() == {NetworkCapability.NAMESPACE}


def test_null_brings_loopback_up_and_nothing_else(sandbox):
    driver = NullDriver(CONTEXT, None)
    assert not within(sandbox.path, loopback_answers)
    for _ in range(2):
        attachment = driver.join(NETWORK, ENDPOINT, sandbox)
    assert (attachment.interface, attachment.addresses) == ("", ())
    assert within(sandbox.path, loopback_answers)
    assert within(sandbox.path, lambda: [name for _, name in socket.if_nameindex()]) == ["lo"]
    for _ in range(2):
        driver.leave(NETWORK, Joined(endpoint=ENDPOINT, sandbox=sandbox, attachment=attachment))
    assert driver.reconcile([NETWORK], [Joined(endpoint=ENDPOINT, sandbox=None, attachment=attachment)]) == ()


def test_null_of_a_container_that_is_gone():
    with pytest.raises(NotFound, match="web is gone"):
        NullDriver(CONTEXT, None).join(NETWORK, ENDPOINT, Sandbox(id="s", path=Path("/proc/0/ns/net")))


def test_work_in_a_sandbox_never_strands_the_caller(sandbox):
    before = Path("/proc/thread-self/ns/net").readlink()
    assert within(sandbox.path, lambda: Path("/proc/thread-self/ns/net").readlink()) != before

    def fail() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        within(sandbox.path, fail)
    assert Path("/proc/thread-self/ns/net").readlink() == before


def test_host_does_nothing_and_publishes_nothing():
    driver = HostDriver(CONTEXT, None)
    links = socket.if_nameindex()
    driver.create_network(NETWORK)
    attachment = driver.join(NETWORK, ENDPOINT, Sandbox(id="", path=Path("/proc/self/ns/net")))
    joined = Joined(endpoint=ENDPOINT, sandbox=None, attachment=attachment)
    with pytest.raises(Unsupported):
        driver.publish(NETWORK, joined)
    driver.leave(NETWORK, joined)
    driver.delete_network(NETWORK)
    assert driver.reconcile([NETWORK], [joined]) == ()
    assert socket.if_nameindex() == links
