"""The process: its start, its folders, its signals, and the core without any plugin."""

from __future__ import annotations

import signal
import socket
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytestmark = pytest.mark.root


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_life(start, root):
    daemon = start().wait_ready()
    assert daemon.json("/info")["ID"]
    assert mode(daemon.socket) == 0o660
    assert mode(root / "data") == 0o710
    assert mode(root / "run") == 0o711
    assert (root / "run" / "wharfied.pid").read_text().strip() == str(daemon.process.pid)
    assert daemon.end() == 0
    assert not daemon.socket.exists()
    assert not (root / "run" / "wharfied.pid").exists()
    assert "Traceback" not in daemon.log.read_text()


def test_two_on_one_root(start, root):
    first = start().wait_ready()
    second = start("--pidfile", str(root / "other.pid"))
    assert second.process.wait(20) == 1
    text = f"data root {root}/data is in use by another daemon (process {first.process.pid}"
    assert text in second.log.read_text()
    assert first.get("/_ping")[0] == 200


def test_two_on_one_socket(start, root):
    start().wait_ready()
    second = start("--data-root", str(root / "data2"), "--exec-root", str(root / "run2"))
    assert second.process.wait(20) == 1
    assert "another daemon answers there" in second.log.read_text()


def test_a_killed_daemon_is_followed_by_another(start):
    first = start().wait_ready()
    info = first.json("/info")
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    second = start().wait_ready()
    assert second.json("/info")["ID"] == info["ID"]


def test_a_second_signal_ends_it_at_once(start):
    daemon = start().wait_ready()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.socket))
        client.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(100)
        daemon.process.send_signal(signal.SIGINT)
        daemon.until_logged("SIGINT: the daemon ends")
        assert daemon.process.wait(20) == 0


def test_streams_do_not_hold_the_end_up(start):
    daemon = start().wait_ready()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(daemon.socket))
        client.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(100)
        daemon.process.send_signal(signal.SIGTERM)
        while client.recv(1000):
            pass
    assert daemon.process.wait(20) == 0


def test_reload(start, root):
    file = root / "daemon.json"
    file.write_text('{"log-level": "warn", "labels": ["a=b"]}')
    daemon = start("--config-file", str(file)).wait_ready()
    assert daemon.json("/info")["Labels"] == ["a=b"]
    file.write_text('{"log-level": "debug", "labels": ["a=c"]}')
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until_logged("the configuration was reloaded")
    daemon.until_logged("labels has changed; that takes effect at the next start")
    daemon.get("/version")
    daemon.until_logged("GET /version: 200")
    file.write_text('{"labels": ')
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until_logged("the configuration was not reloaded: unable to configure the daemon with file")
    assert daemon.get("/_ping")[0] == 200


def test_systemd_is_told(start, root):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(root / "notify"))
        notify.settimeout(20)
        daemon = start(env={"NOTIFY_SOCKET": str(root / "notify")})
        assert notify.recv(100) == b"READY=1"
        daemon.process.send_signal(signal.SIGTERM)
        assert notify.recv(100) == b"STOPPING=1"


def test_plain_tcp_is_warned_of_and_wants_a_name_of_this_host(start):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    daemon = start("--host", f"tcp://127.0.0.1:{port}").wait_ready()
    daemon.until_logged("without any authentication")

    def ask(host: str) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(f"GET /_ping HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
            return client.recv(1000)

    assert ask(f"127.0.0.1:{port}").startswith(b"HTTP/1.1 200")
    assert ask(f"[::1]:{port}").startswith(b"HTTP/1.1 200")
    assert ask(f"localhost:{port}").startswith(b"HTTP/1.1 200")
    assert ask(f"evil.example:{port}").startswith(b"HTTP/1.1 403")


@pytest.fixture
def core_alone(tmp_path: Path) -> list[str]:
    """A command for the daemon in an environment where no plugin is installed."""
    installed = Path(sysconfig.get_path("purelib"))
    site = tmp_path / "site"
    site.mkdir()
    for entry in installed.iterdir():
        name = entry.name.lower()
        if not name.startswith(("wharfie_", "wharfie-", "__editable__")) and entry.suffix != ".pth":
            (site / entry.name).symlink_to(entry)
    (core,) = installed.glob("wharfie-*.dist-info")
    (site / core.name).symlink_to(core)
    source = Path(__file__).resolve().parents[2] / "core"
    script = f"import sys; sys.path[:0] = [{str(source)!r}, {str(site)!r}]; from wharfie.daemon import main; main()"
    return [sys.executable, "-I", "-S", "-c", script]


def test_the_core_starts_alone(start, core_alone):
    daemon = start(command=core_alone).wait_ready()
    assert daemon.json("/info")["ServerVersion"]
    assert all(row["State"] == "absent" for row in daemon.json("/wharfie/plugins"))
    log = daemon.log.read_text()
    for name in (
        "storage-overlay",
        "runtime-native",
        "net-bridge",
        "net-host",
        "ipam-default",
        "volume-local",
        "log-files",
    ):
        assert f"pip install wharfie-{name}" in log
    assert daemon.end() == 0
    assert "Traceback" not in daemon.log.read_text()


def test_only_root_may_start_it(root):
    script = (
        "import os, sys, wharfie.daemon.run, wharfie.daemon; os.setresuid(65534, 65534, 65534)\n"
        f"sys.argv = ['wharfied', '--data-root', '{root}/data']; wharfie.daemon.main()"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, text=True)
    assert found.returncode == 1
    assert "needs to be started as root" in found.stderr
