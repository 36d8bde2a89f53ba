"""Volumes from NFS and SMB servers with the stock CLI: on the virtual machine of `make test-cgroup2`."""

from __future__ import annotations

import json

import pytest

from tests.file_servers import PASSWORD, USER, NfsServer, SmbServer
from tests.harness import until


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    server = NfsServer()
    folder = tmp_path_factory.mktemp("exported")
    try:
        server.start()
        server.export(folder)
        yield folder
    finally:
        server.stop()


def _create(daemon, name, type, device, options):
    daemon.docker("volume", "create", "-o", f"type={type}", "-o", f"device={device}", "-o", f"o={options}", name)


def _is_mounted(daemon, name):
    return any(mount.endswith(f"/{name}/_data") for mount in daemon.mounts())


def test_containers_share_a_folder_of_a_server(make_daemon, exported):
    """One mount for all of them, over a daemon's crash, and none after the last."""
    daemon = make_daemon(busybox=True)
    _create(daemon, "data", "nfs", f":{exported}", "addr=localhost,vers=4.2")
    write = "mkdir /v/sub; echo written > /v/sub/file; chown 5:6 /v/sub/file"
    daemon.docker("run", "--rm", "-v", "data:/v", "busybox", "sh", "-c", write)
    assert (exported / "sub" / "file").read_text() == "written\n"
    assert (exported / "sub" / "file").stat().st_uid == 5
    assert not _is_mounted(daemon, "data")
    sleep = "trap 'exit 0' TERM; while :; do sleep 1; done"
    daemon.docker("run", "-d", "--name", "one", "-v", "data:/v", "busybox", "sh", "-c", sleep)
    part = "type=volume,source=data,target=/v,volume-subpath=sub,readonly"
    daemon.docker("run", "-d", "--name", "two", "--mount", part, "busybox", "sh", "-c", sleep)
    assert daemon.docker("exec", "two", "cat", "/v/file") == "written"
    assert "volume is in use - [" in daemon.docker("volume", "rm", "data", status=1, both=True)
    daemon.kill()
    daemon.start()
    assert daemon.docker("exec", "one", "cat", "/v/sub/file") == "written"
    daemon.docker("rm", "-f", "one")
    assert daemon.docker("exec", "two", "cat", "/v/file") == "written"
    assert _is_mounted(daemon, "data")
    assert daemon.docker("system", "df", "-v", "--format", "{{range .Volumes}}{{.Name}}{{end}}") == ""
    daemon.docker("rm", "-f", "two")
    assert not _is_mounted(daemon, "data")
    daemon.docker("volume", "rm", "data")
    assert (exported / "sub" / "file").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("addr=localhost,vers=4.2,port=1", "data: addr=127.0.0.1,vers=4.2,port=1: connection refused"),
        ("addr=127.0.0.1,vers=4.2,nonsense", "data: addr=127.0.0.1,vers=4.2,nonsense: invalid argument"),
    ],
)
def test_a_mount_that_fails_is_told_as_by_dockerd(daemon, exported, name, options, reason):
    _create(daemon, name, "nfs", f":{exported}", options)
    daemon.docker("create", "--name", name, "-v", f"{name}:/v", "busybox")
    status, answer = daemon.request("POST", f"/containers/{name}/start")
    point = json.loads(daemon.docker("volume", "inspect", name))[0]["Mountpoint"]
    expected = f"error while mounting volume '{point}': failed to mount local volume: mount :{exported}:{point}, {reason}"
    assert (status, answer) == (500, {"message": expected})
    state = daemon.inspect(name)["State"]
    assert (state["Status"], state["ExitCode"], state["Error"]) == ("created", 128, expected)
    assert not _is_mounted(daemon, name)
    daemon.docker("rm", name)
    daemon.docker("volume", "rm", name)


def test_a_share_of_an_smb_server(daemon, name, tmp_path):
    server = SmbServer(tmp_path)
    try:
        server.start()
        _create(daemon, name, "cifs", "//localhost/share", f"username={USER},password={PASSWORD}")
        # What the image has there goes into a share as into any volume.
        line = "cat /etc/passwd; echo more > /etc/more"
        assert "root:x:0:0" in daemon.docker("run", "--rm", "-v", f"{name}:/etc", "busybox", "sh", "-c", line)
        assert {"passwd", "group", "more"} <= {path.name for path in server.folder.iterdir()}
        _create(daemon, f"{name}-wrong", "cifs", "//localhost/share", f"username={USER},password=wrong-one")
        command = ("run", "--rm", "-v", f"{name}-wrong:/v", "busybox", "true")
        text = daemon.docker(*command, status=126, both=True)
        assert "password=********: permission denied" in text and "wrong-one" not in text
        until(lambda: not _is_mounted(daemon, name))
    finally:
        server.stop()
