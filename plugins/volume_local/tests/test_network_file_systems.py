"""Volumes from NFS and SMB servers, with real ones: on the virtual machine of `make test-cgroup2`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from wharfie_volume_local import network
from wharfie_volume_local.driver import LocalDriver

from tests.file_servers import PASSWORD, SHARE, USER, NfsServer, SmbServer, silent_server
from tests.harness import PATIENCE, until
from wharfie.spi.errors import Forbidden, InvalidArgument, Unavailable, Unsupported, WharfieError
from wharfie.spi.mount_points import is_mounted

LOGIN = f"username={USER},password={PASSWORD}"


@pytest.fixture(scope="module")
def nfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NfsServer, Path]]:
    """A server, and a folder that it exports."""
    server = NfsServer()
    folder = tmp_path_factory.mktemp("exported")
    try:
        server.start()
        server.export(folder)
        yield server, folder
    finally:
        server.stop()


@pytest.fixture(scope="module")
def smb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmbServer]:
    server = SmbServer(tmp_path_factory.mktemp("smb"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def driver(make_driver: Callable[[Path], LocalDriver], tmp_path: Path) -> LocalDriver:
    return make_driver(tmp_path / "volumes")


def shown(path: Path) -> str:
    """Type and options of the mount at `path`."""
    lines = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return next(f"{words[2]} {words[3]}" for words in lines if words[1] == str(path))


@pytest.mark.parametrize(
    ("type", "options", "expected"),
    [
        ("nfs", "addr=127.0.0.1,vers=4.2,rw", ("nfs4 rw", "vers=4.2", "addr=127.0.0.1")),
        ("nfs", "vers=4.1,soft,addr=localhost,noatime,ro", ("nfs4 ro", "vers=4.1", "soft", "addr=127.0.0.1")),
        ("nfs", "addr=localhost,nolock", ("nfs rw", "vers=3", "mountaddr=127.0.0.1")),
        ("nfs4", "addr=localhost,rsize=8192", ("nfs4 rw", "rsize=8192")),
    ],
)
def test_nfs(driver, nfs, type, options, expected):
    _, exported = nfs
    path = driver.create("v", {"type": type, "device": f":{exported}", "o": options}, {}).mountpoint
    assert not is_mounted(path)
    assert driver.mount("v", "c1") == driver.mount("v", "c2") == path
    assert all(text in shown(path) for text in expected), shown(path)
    (exported / "from the server").write_text("s")
    assert (path / "from the server").read_text() == "s"
    if expected[0].endswith("rw"):
        (path / "from the client").write_text("c")
        assert (exported / "from the client").read_text() == "c"
    else:
        with pytest.raises(OSError, match="Read-only"):
            (path / "x").write_text("x")
    driver.unmount("v", "c1")
    assert is_mounted(path)
    driver.unmount("v", "c2")
    assert not is_mounted(path)
    driver.remove("v")
    assert (exported / "from the server").exists()


@pytest.mark.parametrize(
    ("device", "options", "expected"),
    [
        ("//127.0.0.1/share", f"{LOGIN},addr=127.0.0.1,rw", "cifs rw"),
        ("//files.example/share", f"{LOGIN},addr=localhost,vers=3.0,uid=1000,file_mode=0640", "cifs rw"),
        ("//localhost/share", f"ro,{LOGIN}", "cifs ro"),
        ("//127.0.0.1/share", f"{LOGIN},ip=127.0.0.1", "cifs rw"),
    ],
)
def test_smb(driver, smb, device, options, expected):
    path = driver.create("v", {"type": "cifs", "device": device, "o": options}, {}).mountpoint
    driver.mount("v", "c1")
    assert shown(path).startswith(expected) and "addr=127.0.0.1" in shown(path)
    (smb.folder / "file").write_text("s")
    assert (path / "file").read_text() == "s"
    if "uid=1000" in options:
        assert ((path / "file").stat().st_uid, (path / "file").stat().st_mode & 0o777) == (1000, 0o640)
    driver.unmount("v", "c1")
    assert not is_mounted(path)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": ":/none", "o": "addr=127.0.0.1,vers=4.2"}, InvalidArgument, "mount :/none:.*no such file or directory"),
        ({"device": ":/none", "o": "addr=127.0.0.1,nolock"}, Forbidden, "data: addr=127.0.0.1,nolock: permission denied"),
        ({"device": ":/", "o": "addr=localhost,vers=4.2,port=1"}, Unavailable, "port=1: connection refused"),
        ({"device": ":/", "o": "addr=127.0.0.1,vers=4.2,nonsense=1"}, InvalidArgument, "nonsense=1: invalid argument"),
        ({"device": ":/", "o": "rw"}, InvalidArgument, "invalid argument"),
        (
            {"device": ":/", "o": "addr=files.invalid,rw"},
            Unavailable,
            "^error resolving passed in network volume address: lookup files.invalid: ",
        ),
    ],
)
def test_an_nfs_mount_that_fails(driver, nfs, options, error, message):
    path = driver.create("v", {"type": "nfs", **options}, {}).mountpoint
    with pytest.raises(error, match=message):
        driver.mount("v", "c1")
    assert not is_mounted(path)
    driver.remove("v")


@pytest.mark.parametrize(
    ("device", "options", "error", "message"),
    [
        (
            "//127.0.0.1/share",
            f"username={USER},password=wrong",
            Forbidden,
            r"password=\*\*\*\*\*\*\*\*: permission denied",
        ),
        ("//127.0.0.1/none", LOGIN, InvalidArgument, "//127.0.0.1/none:.*no such file or directory"),
        ("//127.0.0.1/share", f"{LOGIN},port=1", Unavailable, r"flags|data: .*port=1: "),
        ("//files.invalid/share", LOGIN, Unavailable, "network volume address: lookup files.invalid: "),
        ("share", LOGIN, InvalidArgument, "mount share:.*invalid argument"),
    ],
)
def test_an_smb_mount_that_fails(driver, smb, device, options, error, message):
    path = driver.create("v", {"type": "cifs", "device": device, "o": options}, {}).mountpoint
    with pytest.raises(error, match=message) as caught:
        driver.mount("v", "c1")
    assert "wrong" not in str(caught.value) and PASSWORD not in str(caught.value)
    assert not is_mounted(path)


def silent(type: str, port: int) -> dict[str, str]:
    if type == "nfs":
        return {"type": "nfs", "device": ":/", "o": f"addr=127.0.0.1,vers=4.2,port={port}"}
    return {"type": "cifs", "device": f"//127.0.0.1/{SHARE}", "o": f"{LOGIN},port={port}"}


@pytest.mark.parametrize("type", ["nfs", "cifs"])
def test_a_server_that_never_answers_costs_one_error(driver, nfs, smb, monkeypatch, type):
    monkeypatch.setattr(network, "_PATIENCE", 2.0)
    with silent_server() as port:
        path = driver.create("v", silent(type, port), {}).mountpoint
        began = time.monotonic()
        with pytest.raises(Unavailable, match="connection timed out"):
            driver.mount("v", "c1")
        assert time.monotonic() - began < 30 * PATIENCE
        assert not is_mounted(path)


def test_a_driver_that_is_killed_meanwhile_leaves_no_mount_to_come(driver, nfs, tmp_path):
    code = textwrap.dedent(
        """
        import logging, sys
        from pathlib import Path
        from wharfie.spi.driver import Context, HostFacts
        from wharfie_volume_local.driver import LocalDriver
        facts = HostFacts(kernel=(6, 1), architecture="amd64", cgroup="v1", cpus=2, memory=1)
        root = Path(sys.argv[1])
        log = logging.getLogger()
        driver = LocalDriver(Context(state=root, run=root, instance="", log=log, host=facts, emit=print), None)
        print("ready", flush=True)
        driver.mount("v", "c1")
        """
    )
    root = tmp_path / "volumes"
    with silent_server() as port:
        driver.create("v", silent("nfs", port), {})
        child = subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "ready\n"
        tasks = Path(f"/proc/{child.pid}/task/{child.pid}/children")
        helper = int(until(lambda: tasks.read_text().split(), what="the process that mounts")[0])
        until(lambda: b"mount_call" in Path(f"/proc/{helper}/cmdline").read_bytes(), what="its program")
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        until(lambda: not Path(f"/proc/{helper}").exists(), 30, "the end of the process that mounts")
    assert not is_mounted(root / "v" / "_data")


def test_a_server_that_goes_away_holds_up_nobody(driver, nfs):
    server, exported = nfs
    options = {"type": "nfs", "device": f":{exported}", "o": "addr=127.0.0.1,vers=4.2"}
    path = driver.create("v", options, {}).mountpoint
    driver.mount("v", "c1")
    (path / "file").write_text("x")
    server.pause()
    try:
        began = time.monotonic()
        assert driver.mount("v", "c2") == path
        assert [volume.name for volume in driver.volumes()] == ["v"]
        with pytest.raises(Unsupported):
            driver.usage("v")
        driver.unmount("v", "c1")
        driver.unmount("v", "c2")
        assert time.monotonic() - began < 20 * PATIENCE
        assert not is_mounted(path)
        with pytest.raises(WharfieError, match="connection refused"):
            driver.mount("v", "c3")
        driver.remove("v")
    finally:
        server.go_on()


def test_a_successor_keeps_what_is_in_use(driver, make_driver, nfs, tmp_path):
    _, exported = nfs
    options = {"type": "nfs", "device": f":{exported}", "o": "addr=127.0.0.1,vers=4.2"}
    used, unused = (driver.create(name, options, {}).mountpoint for name in ("used", "unused"))
    driver.mount("used", "c1")
    driver.mount("unused", "c2")
    with open(used / "file", "w") as file:
        successor = make_driver(tmp_path / "volumes")
        assert successor.reconcile({"used": frozenset(("c1",))}) == []
        file.write("went on")
    assert (exported / "file").read_text() == "went on"
    assert is_mounted(used) and not is_mounted(unused)
    successor.unmount("used", "c1")
    assert not is_mounted(used)
