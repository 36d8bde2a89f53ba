"""Bad input gets the contract's status and a sentence that helps, and nothing is half-made."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import tarfile
import threading
import time

import pytest

from tests.harness import busybox_tar, until


def _subnet(text):
    return {"Name": "nx", "IPAM": {"Config": [{"Subnet": text}]}}


def _everything(daemon):
    return (
        daemon.docker("ps", "-aq"),
        daemon.docker("volume", "ls", "-q"),
        daemon.docker("network", "ls", "-q"),
        daemon.docker("images", "-aq"),
    )


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b'{"Image": ', 400, "invalid JSON: unexpected EOF"),
        (b"{nope", 400, "invalid"),
        (b"[]", 400, ""),
        (b'{"Image": 5}', 400, ""),
        (b'{"Image": "busybox", "Cmd": {"a": 1}}', 400, ""),
        (b'{"Image": "busybox", "HostConfig": {"Memory": "lots"}}', 400, ""),
        (b'{"Image": "busybox", "HostConfig": {"Memory": 1024}}', 400, "Minimum memory limit allowed is 6MB"),
        (b'{"Image": "busybox", "HostConfig": {"NanoCpus": 999000000000}}', 400, "range of CPUs is from 0.01"),
        (b'{"Image": "busybox", "HostConfig": {"Runtime": "nosuch"}}', 400, "unknown or invalid runtime name"),
        (b'{"Image": "busybox", "HostConfig": {"CapAdd": ["NOSUCH"]}}', 400, "unknown capability"),
        (b'{"Image": "busybox", "HostConfig": {"PidMode": "odd"}}', 400, "invalid PID mode: odd"),
        (b'{"Image": "busybox", "HostConfig": {"PortBindings": {"80/x": []}}}', 400, "80/x"),
        (b'{"Image": "busybox", "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "99999"}]}}}', 400, "99999"),
        (
            b'{"Image": "busybox", "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "%s"}]}}}' % (b"9" * 5000),
            400,
            "port",
        ),
        ('{"Image": "busybox", "ExposedPorts": {"\u00b2/tcp": {}}}'.encode(), 400, "invalid port specification"),
        (b'{"Image": "busybox", "ExposedPorts": {"/tcp": {}}}', 400, "invalid port specification"),
        (b'{"Image": "busybox", "ExposedPorts": {"90-80/tcp": {}}}', 400, "ends before it begins"),
        (b'{"Image": "busybox", "StopSignal": "%s"}' % (b"9" * 5000), 400, "invalid signal"),
        (
            b'{"Image": "busybox", "HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"max-size": "%s"}}}}'
            % (b"9" * 400),
            400,
            "more than a number of 64 bits holds",
        ),
        (b'{"Image": "busybox", "HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "x"}]}}}', 400, "invalid IP"),
        (b'{"Image": "busybox", "HostConfig": {"DnsSearch": ["a\\nnameserver 1.2.3.4"]}}', 400, "search domain"),
        (b'{"Image": "busybox", "Hostname": "a\\nb"}', 400, "hostname"),
        (b'{"Image": "busybox", "HostConfig": {"ExtraHosts": ["x"]}}', 400, "extra host"),
        (b'{"Image": "busybox", "HostConfig": {"SecurityOpt": ["odd=1"]}}', 400, "security-opt"),
        (b'{"Image": "busybox", "HostConfig": {"Ulimits": [{"Name": "odd"}]}}', 400, "invalid ulimit type: odd"),
        (b'{"Image": "busybox", "WorkingDir": "rel"}', 400, "absolute path"),
        (b'{"Image": "nosuch:1"}', 404, "No such image: nosuch:1"),
        (b'{"Image": "BAD::ref"}', 400, "invalid reference format"),
        (b'{"Image": "busybox", "HostConfig": {"Binds": ["x"]}}', 500, "mount path must be absolute"),
        (b'{"Image": "busybox", "HostConfig": {"Binds": ["a:/b:odd"]}}', 400, "invalid mode"),
        (b'{"Image": "busybox", "HostConfig": {"Binds": ["aa:/b", "cc:/b"]}}', 400, "Duplicate mount point: /b"),
        (b'{"Image": "busybox", "HostConfig": {"Links": ["a:b"]}}', 400, "could not get container for a"),
    ],
)
def test_create(daemon, body, status, text):
    before = _everything(daemon)
    answer = daemon.request("POST", "/containers/create", raw=body, headers={"Content-Type": "application/json"})
    assert answer[0] == status, answer
    assert text.lower() in answer[1]["message"].lower()
    assert "Traceback" not in answer[1]["message"]
    assert _everything(daemon) == before


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("POST", "/networks/create", {"Name": "bridge"}, 403, "operation is not permitted on predefined bridge network"),
        ("POST", "/networks/create", {"Name": ""}, 400, "name"),
        ("POST", "/networks/create", {"Name": "n", "Driver": "nosuch"}, 404, 'plugin "nosuch" not found'),
        ("POST", "/networks/create", _subnet("10.1.2.3/24"), 400, "it should be 10.1.2.0/24"),
        ("POST", "/networks/create", _subnet("no"), 400, "invalid subnet"),
        ("POST", "/networks/create", {"Name": "nx", "Options": {"com.docker.network.driver.mtu": "x"}}, 400, "mtu"),
        ("GET", "/networks/nosuch", None, 404, "network nosuch not found"),
        ("DELETE", "/networks/bridge", None, 403, "pre-defined network and cannot be removed"),
        ("POST", "/volumes/create", {"Name": "bad/name"}, 400, "includes invalid characters"),
        ("POST", "/volumes/create", {"Name": "vx", "Driver": "nosuch"}, 404, 'plugin "nosuch" not found'),
        ("POST", "/volumes/create", {"Name": "vx", "DriverOpts": {"odd": "1"}}, 400, 'create vx: invalid option: "odd"'),
        ("GET", "/volumes/nosuch", None, 404, "get nosuch: no such volume"),
        ("GET", "/images/nosuch/json", None, 404, "No such image: nosuch:latest"),
        ("GET", "/containers/nosuch/json", None, 404, "No such container: nosuch"),
        ("POST", "/containers/nosuch/start", None, 404, "No such container: nosuch"),
        ("GET", "/containers/json?filters=notjson", None, 400, "invalid filter"),
        ("GET", "/images/search?term=x&limit=--5", None, 400, "invalid syntax"),
        ("POST", f'/images/prune?filters={{"until":["{"9" * 5000}"]}}', None, 400, "invalid time"),
        ("POST", f'/images/prune?filters={{"until":["{"9" * 400}h"]}}', None, 400, "invalid time"),
        ("GET", f'/containers/json?filters={{"exited":["{"9" * 5000}"]}}', None, 400, "invalid filter 'exited="),
        ("GET", '/containers/json?filters={"exited":["--5"]}', None, 400, "invalid filter 'exited="),
        ("GET", f'/containers/json?filters={{"publish":["{"9" * 5000}"]}}', None, 400, "invalid filter 'publish="),
        ("GET", "/exec/nosuch/json", None, 404, "No such exec instance: nosuch"),
    ],
)
def test_other_objects(daemon, method, path, body, status, text):
    before = _everything(daemon)
    answer = daemon.request(method, path, body)
    assert answer[0] == status, answer
    assert text in answer[1]["message"]
    assert _everything(daemon) == before


def test_names_and_ports_that_are_taken(daemon, name):
    daemon.docker("run", "-d", "--name", f"{name}-a", "-p", "127.0.0.1::80", "busybox", "sleep", "600")
    port = daemon.docker("port", f"{name}-a", "80/tcp").rsplit(":", 1)[1]
    text = daemon.docker("create", "--name", f"{name}-a", "busybox", status=1, both=True)
    assert f'Conflict. The container name "/{name}-a" is already in use by container' in text
    text = daemon.docker(
        "run", "--name", f"{name}-b", "-p", f"127.0.0.1:{port}:80", "busybox", "true", status=125, both=True
    )
    assert f"Bind for 127.0.0.1:{port} failed: port is already allocated" in text
    assert daemon.inspect(f"{name}-b")["State"]["Status"] == "created"
    daemon.docker("rm", "-f", f"{name}-a")
    daemon.docker("start", f"{name}-b")


def test_a_limit_that_the_kernel_refuses(daemon):
    text = daemon.docker("run", "--rm", "--ulimit", "nofile=9999999:9999999", "busybox", "true", status=125, both=True)
    assert "nofile" in text.lower()


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_archives_that_are_damaged(daemon, damage):
    whole = busybox_tar()
    data = {"truncated": whole[: len(whole) // 2], "garbage": b"\x00garbage" * 4096, "empty": b"x"}[damage]
    before = _everything(daemon)
    for words in (("load",), ("import", "-", "damaged:1")):
        result = daemon.run_docker(*words, stdin=data)
        assert result.returncode == 1, (words, result.stdout)
        assert b"Traceback" not in result.stderr
        assert result.stderr.strip()
    assert _everything(daemon) == before


def test_an_archive_that_escapes(daemon, tmp_path):
    canary = tmp_path / "canary"
    canary.write_text("untouched")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        link = tarfile.TarInfo("out")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        tar.addfile(link)
        for entry_name in ("out/canary", f"../../../../../..{canary}", str(canary)):
            entry = tarfile.TarInfo(entry_name)
            entry.size = 4
            tar.addfile(entry, io.BytesIO(b"evil"))
    daemon.run_docker("import", "-", "escape:1", stdin=buffer.getvalue())
    daemon.run_docker("rmi", "-f", "escape:1")
    assert canary.read_text() == "untouched"
    assert [path.name for path in tmp_path.iterdir()] == ["canary"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 48 MB as data root."""
    image, folder = tmp_path / "disk.img", tmp_path / "small"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(48 * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def test_no_space_left(make_daemon, small_disk):
    daemon = make_daemon(start=False)
    daemon.data = small_disk / "data"
    daemon.start()
    daemon.docker("import", "--change", 'CMD ["sh"]', "-", "busybox:latest", stdin=busybox_tar())
    daemon.docker("run", "-d", "--name", "lives", "busybox", "sh", "-c", "while :; do echo tick; sleep 0.1; done")
    big = io.BytesIO()
    with tarfile.open(fileobj=big, mode="w") as tar:
        entry = tarfile.TarInfo("big")
        entry.size = 60 * 1024 * 1024
        tar.addfile(entry, io.BytesIO(b"\1" * entry.size))
    result = daemon.run_docker("import", "-", "big:1", stdin=big.getvalue())
    assert result.returncode != 0
    assert b"no space left" in result.stderr.lower()
    assert daemon.docker("images", "-q", "big") == ""
    daemon.run_docker("exec", "lives", "sh", "-c", "cat /dev/zero > /fill")
    result = daemon.run_docker("create", "--name", "nofit", "-v", "vol:/v", "busybox")
    assert daemon.inspect("lives")["State"]["Running"] is True
    if result.returncode:
        assert b"no space left" in result.stderr.lower()
        assert "nofit" not in daemon.docker("ps", "-a", "--format", "{{.Names}}").split()
    daemon.docker("exec", "lives", "rm", "/fill")
    daemon.run_docker("rm", "-f", "nofit")
    assert daemon.docker("run", "--rm", "busybox", "echo", "works again") == "works again"
    daemon.docker("rm", "-f", "lives")


def test_a_registry_that_is_slow_or_breaks_off(daemon):
    """A server that accepts and says nothing, and one that hangs up: clear errors, nothing half-made."""
    before = _everything(daemon)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def hang_up():
            try:
                while True:
                    server.accept()[0].close()
            except OSError:
                return

        threading.Thread(target=hang_up, daemon=True).start()
        started = time.monotonic()
        text = daemon.docker("pull", f"127.0.0.1:{port}/broken:1", status=1, both=True)
        assert "Error response from daemon" in text
        assert time.monotonic() - started < 30
    assert _everything(daemon) == before


def test_a_client_that_leaves_a_pull_leaves_nothing(daemon):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        client = daemon.spawn_docker("pull", f"127.0.0.1:{port}/silent:1")
        silent.settimeout(10)
        connection, _ = silent.accept()
        client.terminate()
        client.wait()
        connection.close()
    assert until(lambda: daemon.request("GET", "/_ping")[0] == 200)
    assert "silent" not in daemon.docker("images")


def test_answers_are_json(daemon):
    status, headers, body = daemon.exchange("GET", "/no/such/page")
    kind = {name.lower(): value for name, value in headers.items()}["content-type"]
    assert (status, kind, json.loads(body)) == (404, "application/json", {"message": "page not found"})
