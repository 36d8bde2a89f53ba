"""Networks with the stock CLI: names, isolation, published ports, connecting while running."""

from __future__ import annotations

import json
import socket

import pytest

from tests.harness import free_port, until

SERVE = "echo page > /tmp/index.html; exec httpd -f -h /tmp -p 80"


def _reaches(daemon, network, url):
    result = daemon.run_docker("run", "--rm", "--network", network, "busybox", "timeout", "3", "wget", "-q", "-O-", url)
    return result.returncode == 0 and result.stdout == b"page\n"


def _address(daemon, container, network):
    return daemon.inspect(container)["NetworkSettings"]["Networks"][network]["IPAddress"]


def test_the_lab_of_three_networks(daemon, name):
    """A web server in front, an API between, a database behind: the web server never reaches the database."""
    for network in ("front", "back", "data"):
        daemon.docker("network", "create", f"{name}-{network}")
    daemon.docker("run", "-d", "--name", f"{name}-web", "--network", f"{name}-front", "busybox", "sh", "-c", SERVE)
    daemon.docker("run", "-d", "--name", f"{name}-api", "--network", f"{name}-front", "busybox", "sh", "-c", SERVE)
    daemon.docker("network", "connect", f"{name}-back", f"{name}-api")
    daemon.docker("run", "-d", "--name", f"{name}-db", "--network", f"{name}-data", "busybox", "sh", "-c", SERVE)
    daemon.docker("network", "connect", f"{name}-back", f"{name}-db")

    def fetch(source, target):
        result = daemon.run_docker("exec", source, "timeout", "3", "wget", "-q", "-O-", f"http://{target}/")
        return result.stdout == b"page\n"

    assert fetch(f"{name}-web", f"{name}-api")
    assert fetch(f"{name}-api", f"{name}-web")
    assert fetch(f"{name}-api", f"{name}-db")
    assert not fetch(f"{name}-web", f"{name}-db")
    for network in ("back", "data"):
        assert not fetch(f"{name}-web", _address(daemon, f"{name}-db", f"{name}-{network}"))


def test_names_aliases_and_disconnecting(daemon, name):
    network = f"{name}-net"
    daemon.docker("network", "create", network)
    daemon.docker(
        "run", "-d", "--name", f"{name}-a", "--network", network, "--network-alias", "also", "busybox", "sh", "-c", SERVE
    )
    short = daemon.inspect(f"{name}-a")["Id"][:12]
    for host in (f"{name}-a", "also", short, f"{name}-a.{network}"):
        assert _reaches(daemon, network, f"http://{host}/"), host
    assert not _reaches(daemon, network, "http://no-such-name/")
    daemon.docker("rename", f"{name}-a", f"{name}-b")
    assert _reaches(daemon, network, f"http://{name}-b/")
    daemon.docker("network", "disconnect", network, f"{name}-b")
    assert not _reaches(daemon, network, f"http://{name}-b/")
    daemon.docker("network", "connect", "--alias", "again", network, f"{name}-b")
    assert _reaches(daemon, network, "http://again/")
    text = daemon.docker("network", "connect", network, f"{name}-b", status=1, both=True)
    assert f"endpoint with name {name}-b already exists in network {network}" in text
    text = daemon.docker("network", "rm", network, status=1, both=True)
    assert "has active endpoints" in text


def test_a_static_address(daemon, name):
    network = f"{name}-net"
    daemon.docker("network", "create", "--subnet", "10.215.77.0/24", "--ip-range", "10.215.77.128/25", network)
    daemon.docker(
        "run", "-d", "--name", f"{name}-a", "--network", network, "--ip", "10.215.77.5", "busybox", "sleep", "600"
    )
    assert _address(daemon, f"{name}-a", network) == "10.215.77.5"
    daemon.docker("run", "-d", "--name", f"{name}-b", "--network", network, "busybox", "sleep", "600")
    assert _address(daemon, f"{name}-b", network) == "10.215.77.128"
    words = ("run", "--name", f"{name}-c", "--network", network, "--ip", "10.215.77.5", "busybox", "true")
    assert "Address already in use" in daemon.docker(*words, status=125, both=True)
    daemon.docker("restart", "-t", "0", f"{name}-a")
    assert _address(daemon, f"{name}-a", network) == "10.215.77.5"


def test_an_internal_network_has_no_way_out(daemon, name):
    network = f"{name}-net"
    daemon.docker("network", "create", "--internal", network)
    daemon.docker("run", "-d", "--name", f"{name}-a", "--network", network, "busybox", "sh", "-c", SERVE)
    assert _reaches(daemon, network, f"http://{name}-a/")
    routes = daemon.docker("exec", f"{name}-a", "ip", "route")
    assert "default" not in routes


def test_published_ports(daemon, name):
    first = free_port()
    daemon.docker(
        *("run", "-d", "--name", name, "-p", f"127.0.0.1:{first}:80", "-p", "0.0.0.0::80", "busybox", "sh", "-c", SERVE),
    )
    bindings = daemon.docker("port", name, "80/tcp").splitlines()
    assert f"127.0.0.1:{first}" in bindings
    assert any(binding.startswith("0.0.0.0:") for binding in bindings)
    for binding in bindings:
        port = int(binding.rsplit(":", 1)[1])
        assert until(lambda port=port: _fetch("127.0.0.1", port)) == b"page\n"
    gateway_port = int(next(b for b in bindings if b.startswith("0.0.0.0")).rsplit(":", 1)[1])
    assert _reaches(daemon, "bridge", f"http://{daemon.gateway}:{gateway_port}/")
    daemon.docker("stop", "-t", "0", name)
    with pytest.raises(OSError):
        _fetch("127.0.0.1", first, strict=True)
    with socket.create_server(("127.0.0.1", first)):
        pass


def _fetch(host, port, *, strict=False):
    try:
        with socket.create_connection((host, port), timeout=2) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while piece := connection.recv(4096):
                answer += piece
            return answer.partition(b"\r\n\r\n")[2]
    except OSError:
        if strict:
            raise
        return None


def test_a_published_range_and_udp(daemon, name):
    base = free_port()
    daemon.docker(
        "run", "-d", "--name", f"{name}-r", "-p", f"127.0.0.1:{base}-{base + 2}:8000-8002", "busybox", "sleep", "600"
    )
    assert daemon.docker("port", f"{name}-r", "8001/tcp") == f"127.0.0.1:{base + 1}"
    # busybox has no UDP server: the host's Python, lent read-only.
    lent = [word for folder in ("usr", "lib", "lib64") for word in ("-v", f"/{folder}:/{folder}:ro")]
    server = "import socket as s; u = s.socket(2, 2); u.bind(('', 5353))\nwhile 1: u.sendto(*u.recvfrom(99))"
    words = ("run", "-d", "--name", f"{name}-u", "-p", "127.0.0.1::5353/udp", *lent, "busybox")
    daemon.docker(*words, "/usr/bin/python3", "-c", server)
    port = int(daemon.docker("port", f"{name}-u", "5353/udp").rsplit(":", 1)[1])

    def ask():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.5)
            client.sendto(b"hello", ("127.0.0.1", port))
            try:
                return client.recv(100)
            except OSError:
                return None

    assert until(ask) == b"hello"


def test_a_port_of_another_program_is_refused(daemon, name):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = daemon.docker("run", "--name", name, "-p", f"127.0.0.1:{port}:80", "busybox", "true", status=125, both=True)
    assert "port is already allocated" in text


def test_host_and_none(daemon):
    links = daemon.docker("run", "--rm", "--network", "none", "busybox", "ip", "-o", "link")
    assert [line.split(":")[1].strip().split("@")[0] for line in links.splitlines()] == ["lo"]
    assert daemon.bridge in daemon.docker("run", "--rm", "--network", "host", "busybox", "ip", "-o", "link")


def test_network_inspect_and_filters(daemon, name):
    network = f"{name}-net"
    daemon.docker("network", "create", "--label", f"of={name}", "-o", "com.docker.network.driver.mtu=1400", network)
    daemon.docker("run", "-d", "--name", f"{name}-a", "--network", network, "busybox", "sleep", "600")
    document = json.loads(daemon.docker("network", "inspect", network))[0]
    [entry] = document["Containers"].values()
    assert entry["Name"] == f"{name}-a"
    assert document["Options"]["com.docker.network.driver.mtu"] == "1400"
    assert "mtu 1400" in daemon.docker("exec", f"{name}-a", "ip", "link", "show", "eth0")
    assert daemon.docker("network", "ls", "-q", "--filter", f"label=of={name}", "--no-trunc") == document["Id"]
    daemon.docker("rm", "-f", f"{name}-a")
    pruned = daemon.docker("network", "prune", "-f", "--filter", f"label=of={name}")
    assert network in pruned


def test_an_address_is_called_by_the_name_and_the_network(daemon, name):
    daemon.docker("network", "create", f"{name}net")
    daemon.docker("run", "-d", "--name", f"{name}web", "--network", f"{name}net", "busybox", "sleep", "300")
    address = daemon.docker(
        "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", f"{name}web"
    ).strip()
    told = daemon.docker("run", "--rm", "--network", f"{name}net", "busybox", "nslookup", address)
    assert f"name = {name}web.{name}net" in told


def test_port_53_is_the_containers_own(daemon, name):
    daemon.docker("network", "create", f"{name}net")
    serve = SERVE.replace("-p 80", "-p 53")
    daemon.docker("run", "-d", "--name", f"{name}own", "--network", f"{name}net", "busybox", "sh", "-c", serve)
    assert _reaches(daemon, f"{name}net", f"http://{name}own:53/")
