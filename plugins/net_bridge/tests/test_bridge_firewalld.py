"""Beside the real firewalld: containers come out, ports come in, networks stay apart, and a reload changes none of it."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

UNPACKED = Path(sys.executable).with_name("firewalld")
"""Debian's packages of firewalld and of what it needs, taken apart by the Makefile: installed it would be a service."""
PATIENCE = 30.0
BUS = """<busconfig><type>system</type><user>root</user><listen>unix:path={socket}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/>
<allow receive_sender="*"/></policy></busconfig>"""

pytestmark = pytest.mark.skipif(not UNPACKED.is_dir(), reason="`make test` unpacks firewalld, without it there is none")


class Firewalld:
    """A bus and a firewalld of the test's own, in the namespace of the test's host."""

    def __init__(self, folder) -> None:
        self._folder = folder
        self.socket = folder / "bus"
        libraries = f"{UNPACKED}/usr/lib/{os.uname().machine}-linux-gnu"
        self._environment = {
            "PATH": os.environ["PATH"],
            "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={self.socket}",
            "GI_TYPELIB_PATH": f"{libraries}/girepository-1.0",
            "LD_LIBRARY_PATH": libraries,
            "PYTHONPATH": f"{UNPACKED}/usr/lib/python3/dist-packages",
        }
        shutil.copytree(f"{UNPACKED}/etc/firewalld", folder / "etc")
        (folder / "bus.conf").write_text(BUS.format(socket=self.socket))
        self._log = (folder / "log").open("wb")
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self._spawn(f"{UNPACKED}/usr/bin/dbus-daemon", f"--config-file={self._folder}/bus.conf", "--nofork", "--nopidfile")
        soon(self.socket.exists, "a bus")
        places = ("--default-config", f"{UNPACKED}/usr/lib/firewalld", "--system-config", f"{self._folder}/etc")
        self._spawn("/usr/bin/python3", f"{UNPACKED}/usr/sbin/firewalld", "--nofork", "--nopid", *places)
        soon(lambda: self._run("--state").returncode == 0, "firewalld")

    def do(self, *words: str) -> str:
        result = self._run(*words)
        assert result.returncode == 0, result.stdout + result.stderr + (self._folder / "log").read_text()
        return result.stdout

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = ["/usr/bin/python3", f"{UNPACKED}/usr/bin/firewall-cmd", *words]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)

    def _spawn(self, *command: str) -> None:
        self._processes.append(subprocess.Popen(command, env=self._environment, stdout=self._log, stderr=self._log))

    def close(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            process.wait()
        self._log.close()


def soon(condition, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} s"
        time.sleep(0.05)


@pytest.fixture
def firewalld(world, tmp_path, monkeypatch):
    firewalld = Firewalld(tmp_path)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={firewalld.socket}")
    try:
        yield firewalld
    finally:
        firewalld.close()


def container(world, driver, net, name, host, port=""):
    one = world.container(driver, name)
    joined = one.join(net, host)
    one.place.serve(80)
    if port:
        driver.publish(net, dataclasses.replace(joined, ports=(world.port(port),)))
    return one.place


def test_everything_goes_on_beside_it(world, driver, firewalld):
    outside = world.neighbour("outside", 1)
    outside.serve(80)
    nets = [world.network(number) for number in (1, 2, 3)]
    driver.create_network(nets[0])
    web = container(world, driver, nets[0], "web", 2, "0.0.0.0:8080:80")
    firewalld.start()
    # A network that was there before it, one that it meets, and one that the operator has put into a zone.
    driver.create_network(nets[1])
    friend = container(world, driver, nets[0], "friend", 3)
    stranger = container(world, driver, nets[1], "stranger", 2)
    firewalld.do("--zone=drop", "--add-interface=br-030303030303")
    driver.create_network(nets[2])

    def whole() -> bool:
        return (
            web.ask("10.213.1.2", 80, wait=1) == "outside 10.213.1.1"
            and stranger.ask("10.213.1.2", 80, wait=1) == "outside 10.213.1.1"
            and outside.ask("10.213.1.1", 8080, wait=1) == "web 10.213.1.2"
            and stranger.ask("10.213.1.1", 8080, wait=1) == "web 10.212.1.1"
            and friend.ask("10.212.1.2", 80, wait=1) == "web 10.212.1.3"
        )

    for act in ((), ("--reload",), ("--complete-reload",)):
        if act:
            firewalld.do(*act)
        soon(whole, " ".join(act) or "its start")
        for caller, address in ((outside, "10.212.1.2"), (stranger, "10.212.1.2"), (web, "10.212.2.2")):
            assert caller.lost(address, 80)
        if not act:
            assert firewalld.do("--zone=drop", "--list-interfaces") == "br-030303030303\n"
    driver.delete_network(nets[1])
    assert set(firewalld.do("--zone=trusted", "--list-interfaces").split()) == {"br-010101010101", "br-030303030303"}
    assert driver.reconcile([], []) == []
    assert firewalld.do("--zone=trusted", "--list-interfaces").strip() == ""


def test_it_may_be_hard_of_hearing(world, driver, firewalld, caplog):
    """Its table is there, and nobody at the bus: that is said, and the network is made."""
    world.sh("nft 'table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; }; }'")
    driver.create_network(world.network(1))
    assert "firewall-cmd --zone=trusted --add-interface=" in caplog.text
    assert world.elements()["bridges"] == ["br-010101010101"]
