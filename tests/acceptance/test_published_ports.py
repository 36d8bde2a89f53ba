"""Published ports as a user meets them: which addresses, by whom they are served, who may have them."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from tests.harness import Daemon, free_port, until

ANSWER = "while :; do echo pong | nc -l -p 80; done"


def run(daemon: Daemon, name: str, *words: str) -> None:
    daemon.docker("run", "-d", "--name", name, *words, "busybox", "sh", "-c", ANSWER)


def ask(address: str, port: int) -> str:
    """What the container says; empty when nobody answers."""
    try:
        with socket.create_connection((address, port), 20) as connection:
            return connection.recv(10).decode().strip()
    except OSError:
        return ""


def answers(address: str, port: int) -> None:
    """The program in the container serves one caller at a time, and is away in between."""
    until(lambda: ask(address, port) == "pong", 20, f"an answer at {address}")


def proxy_of(daemon: Daemon) -> int:
    """The process that relays; 0: there is none."""
    return next((int(line.split()[0]) for line in daemon.processes() if "wharfie.proxy" in line), 0)


def test_all_addresses_are_those_of_ipv6_too(daemon, name):
    port = free_port()
    run(daemon, name, "-p", f"{port}:80", "-p", "81")
    assert daemon.docker("port", name, "80/tcp").splitlines() == [f"0.0.0.0:{port}", f"[::]:{port}"]
    chosen = daemon.inspect(name)["NetworkSettings"]["Ports"]["81/tcp"]
    assert [one["HostIp"] for one in chosen] == ["0.0.0.0", "::"]
    assert chosen[0]["HostPort"] == chosen[1]["HostPort"] != "", "the same port in both families"
    for address in ("127.0.0.1", "::1"):
        answers(address, port)
    daemon.docker("run", "-d", "--name", f"{name}4", "-p", "127.0.0.1::80", "busybox", "sleep", "600")
    assert daemon.docker("port", f"{name}4").splitlines()[0].startswith("80/tcp -> 127.0.0.1:")
    assert len(daemon.docker("port", f"{name}4").splitlines()) == 1


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_port_that_is_taken(daemon, name, family):
    with socket.socket(family) as other:
        if family == socket.AF_INET6:
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        other.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        port, shown = other.getsockname()[1], "[::]" if family == socket.AF_INET6 else "0.0.0.0"
        free = free_port()
        words = ("run", "-d", "--name", name, "-p", f"{free}:81", "-p", f"{port}:80", "busybox", "sleep", "600")
        said = daemon.docker(*words, status=125, both=True)
    assert f"Bind for {shown}:{port} failed: port is already allocated" in said
    # Nothing is kept of a start that failed.
    for _ in range(2):
        daemon.docker("start", name)
        daemon.docker("restart", "-t0", name)
        daemon.docker("stop", "-t0", name)
        with socket.create_server(("::", free), family=socket.AF_INET6, dualstack_ipv6=True):
            pass


def test_two_containers_want_one_port(daemon, name):
    port = free_port()
    run(daemon, name, "-p", f"{port}:80")
    answers("::1", port)
    said = daemon.docker("run", "--name", f"{name}2", "-p", f"{port}:80", "busybox", "true", status=125, both=True)
    assert f"Bind for 0.0.0.0:{port} failed: port is already allocated" in said
    daemon.docker("rm", "-f", name)
    # At once, although connections of the first one may still wait for their last packets.
    daemon.docker("start", f"{name}2")


def test_the_proxy_and_the_daemon_hold_for_each_other(make_daemon):
    daemon = make_daemon(busybox=True)
    assert proxy_of(daemon) == 0, "nobody has published a port"
    port = free_port()
    run(daemon, "web", "-p", f"{port}:80")
    answers("::1", port)
    daemon.kill()
    answers("::1", port)
    with pytest.raises(OSError, match="in use"), socket.create_server(("0.0.0.0", port)):
        pass
    proxy = proxy_of(daemon)
    daemon.start()
    assert proxy_of(daemon) == proxy
    answers("::1", port)
    os.kill(proxy, signal.SIGKILL)
    until(lambda: proxy_of(daemon) not in (0, proxy), 20, "a new proxy")
    answers("::1", port)
    pid = daemon.inspect("web")["State"]["Pid"]
    # The container ends while nobody looks: the port is given up, and the proxy with it.
    daemon.kill()
    os.kill(pid, signal.SIGKILL)
    until(lambda: proxy_of(daemon) == 0, 20, "the proxy has ended")
    with socket.create_server(("0.0.0.0", port)):
        pass


def test_networks_come_and_go_beneath_a_relayed_port(daemon, name):
    port = free_port()
    daemon.docker("network", "create", name)
    run(daemon, name, "-p", f"{port}:80", "--network", name)
    answers("::1", port)
    daemon.docker("network", "connect", "bridge", name)
    daemon.docker("network", "disconnect", name, name)
    answers("::1", port)
    daemon.docker("network", "disconnect", "bridge", name)
    daemon.docker("network", "connect", name, name)
    answers("::1", port)


def test_an_image_may_expose_a_range(daemon, name):
    body = {"Image": "busybox", "Cmd": ["sleep", "600"], "ExposedPorts": {"80-81/tcp": {}, "53/udp": {}}}
    status, answer = daemon.request("POST", f"/containers/create?name={name}", body)
    assert status == 201, answer
    daemon.docker("start", name)
    assert daemon.docker("ps", "--filter", f"name={name}", "--format", "{{.Ports}}") == "53/udp, 80-81/tcp"
    assert set(daemon.inspect(name)["NetworkSettings"]["Ports"]) == {"53/udp", "80/tcp", "81/tcp"}


@pytest.mark.parametrize("address", ["[fe80::1]", "[::ffff:127.0.0.1]"])
def test_an_address_that_cannot_be_bound_is_not_called_taken(daemon, name, address):
    text = daemon.docker("run", "--rm", "-p", f"{address}:{free_port()}:80", "busybox", "true", status=125, both=True)
    assert "cannot bind" in text
    assert "already allocated" not in text


def test_the_first_free_port_of_a_range(daemon, name):
    low = next(port for port in iter(free_port, 0) if port % 100 < 90)
    with socket.socket() as other:
        other.bind(("127.0.0.1", low))
        other.listen()
        words = ("-p", f"127.0.0.1:{low}-{low + 2}:80")
        for number, port in (("1", low + 1), ("2", low + 2)):
            run(daemon, name + number, *words)
            assert daemon.docker("port", name + number, "80/tcp") == f"127.0.0.1:{port}"
            answers("127.0.0.1", port)
        said = daemon.docker("run", "--name", f"{name}3", *words, "busybox", "true", status=125, both=True)
        assert f"all ports are allocated: no port from {low} to {low + 2} is free for tcp on 127.0.0.1" in said
    daemon.docker("start", f"{name}3")
    # A range onto a range of which one is taken: nothing of it is kept.
    ranges = f"127.0.0.1:{low + 2}-{low + 4}:90-92"
    said = daemon.docker("run", "--name", f"{name}4", "-p", ranges, "busybox", "true", status=125, both=True)
    assert f"Bind for 127.0.0.1:{low + 2} failed: port is already allocated" in said
    with socket.create_server(("127.0.0.1", low + 3)), socket.create_server(("127.0.0.1", low + 4)):
        pass


def test_sctp(daemon, name):
    """Published where the kernel has it; where it has not, that is said before the container starts."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
        missing = False
    except OSError:
        missing = True
    port, free = free_port(), free_port()
    words = ("run", "-d", "--name", name, "-p", f"{free}:81", "-p", f"127.0.0.1:{port}:80/sctp", "busybox", "sleep", "600")
    if missing:
        said = daemon.docker(*words, status=125, both=True)
        assert "this kernel has no sctp sockets: Protocol not supported" in said
        assert daemon.inspect(name)["State"]["Status"] == "created"
        with socket.create_server(("0.0.0.0", free)):
            pass
    else:
        daemon.docker(*words)
        assert daemon.docker("port", name, "80/sctp") == f"127.0.0.1:{port}"
