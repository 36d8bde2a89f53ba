"""A hostile set of drivers is installed beside the good ones: the daemon starts, lists each with its fault, and every good
driver works as before."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Daemon, import_busybox, running, until
from tests.plugins_system.test_hostile_drivers import REFUSED
from tests.strangers import STRANGERS, build_wheel, hostile

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(240)]

ISOLATED = ("exhausts", "crashes", "crash-import", "crash-open")
"""What no thread survives may only run in a process of its own."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    site = tmp_path_factory.mktemp("site")
    build_wheel(STRANGERS / "wharfie-acme", site)
    # hook-second asks for a mount that no runtime can make, as plugins may: it is no hostile one but a wrong one.
    hooks = [one for one in hostile.HOOKS if one.name != "hook-second"]
    hostile.install(site, *hostile.STRANGERS, *hooks)
    short = {"deadlines": {"create": 0.5, "get": 0.5, "remove": 0.5, "open": 0.5}, "workers": 2}
    drivers = {f"volume.{name}": {"isolate": True} for name in ISOLATED}
    drivers |= {f"volume.{name}": short for name in ("hangs", "openhangs")}
    made = Daemon(tmp_path_factory.mktemp("hostile"), config={"drivers": drivers})
    made.extra_environment = {"PYTHONPATH": str(site)}
    began = time.monotonic()
    with running(made) as daemon:
        assert time.monotonic() - began < 15
        import_busybox(daemon)
        daemon.docker("run", "-d", "--name", "witness", "-v", "kept:/v", "busybox", "sleep", "900")
        yield daemon


def rows(daemon: Daemon) -> dict[str, dict[str, str]]:
    return {f"{row['Kind']}.{row['Name']}": row for row in daemon.request("GET", "/wharfie/plugins")[1]}


def good_ones_work(daemon: Daemon, tag: str) -> None:
    """Every kind of good driver, the stranger's among them, in one container."""
    for volume in (("-d", "acme"), ("-d", "local"), ("-d", "good")):
        daemon.docker("volume", "create", *volume, f"{tag}-{volume[1]}")
    mounts = ("-v", f"{tag}-acme:/a", "-v", f"{tag}-local:/l")
    output = daemon.docker(
        "run", "--rm", *mounts, "busybox", "sh", "-c", "echo yes > /a/f; cp /a/f /l/f; cat /l/f; ip -4 a"
    )
    assert output.startswith("yes") and "inet 10." in output
    assert daemon.docker("exec", "witness", "echo", "alive") == "alive"
    daemon.docker("volume", "rm", f"{tag}-acme", f"{tag}-local", f"{tag}-good")


def test_the_daemon_starts_and_lists_every_one(house: Daemon):
    shown = rows(house)
    assert {f"volume.{one.name}" for one in hostile.STRANGERS} <= shown.keys()
    assert shown["volume.future"]["State"] == "incompatible" and "wharfie>=99" in shown["volume.future"]["Cause"]
    assert shown["volume.twice"]["State"] == "duplicate"
    assert shown["hook.hook-raises"]["State"] != "broken"
    assert shown["hook.hook-misspelt"]["State"] == "broken"
    good_ones_work(house, "first")


def test_each_costs_its_own_caller_one_error(house: Daemon):
    for name, (state, texts) in REFUSED.items():
        done = house.run_docker("volume", "create", "-d", name, f"of-{name}")
        assert done.returncode == 1, name
        row = rows(house)[f"volume.{name}"]
        assert row["State"] == state.value, (name, row)
        for text in texts:
            said = done.stderr.decode() + row["Cause"] + row["Remedy"]
            assert text.replace("0.2 s", "0.5 s") in said, (name, text, said)
    good_ones_work(house, "refused")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("raises-everywhere", "RuntimeError: never"),
        ("exhausts", "too many open files"),
        ("crash-import", "ended with status 7"),
        ("crash-open", "ended with status 5"),
    ],
)
def test_wild_ones_hurt_nobody_else(house: Daemon, name: str, text: str):
    done = house.run_docker("volume", "create", "-d", name, f"by-{name}")
    assert done.returncode == 1 and text in done.stderr.decode()
    good_ones_work(house, name)


@pytest.mark.parametrize("way", ["exit", "segfault", "kill", "closes", "sysexit"])
def test_crashes_hurt_nobody_else(house: Daemon, way: str):
    until(lambda: rows(house)["volume.crashes"]["State"] in ("installed", "open"))
    done = house.run_docker("volume", "create", "-d", "crashes", way)
    assert done.returncode == 1 and 'volume driver "crashes" (wharfie-crashes 1.0)' in done.stderr.decode()
    good_ones_work(house, way)


def test_one_that_hangs_holds_only_its_own_calls(house: Daemon):
    house.docker("volume", "create", "-d", "hangs", "h1")
    callers = [house.spawn_docker("volume", "inspect", "h1") for _ in range(6)]
    good_ones_work(house, "hanging")
    for caller in callers:
        _, error = caller.communicate(timeout=60)
        assert caller.returncode == 1 and b"hangs" in error
    assert "volume.hangs" in json.dumps(house.request("GET", "/wharfie/doctor")[1])
    good_ones_work(house, "hung")


def test_closed_stdin_and_leaks(house: Daemon):
    house.docker("volume", "create", "-d", "closes-stdin", "s1")
    good_ones_work(house, "stdin")
    for number in range(40):
        house.docker("volume", "create", "-d", "leaks", f"leak{number}")
    leaks = house.request("GET", "/wharfie/plugins/volume.leaks")[1]["Leaks"]
    assert any("descriptors" in one and "/dev/null" in one for one in leaks), leaks
    assert any("threads" in one and "forgotten by leak" in one for one in leaks), leaks
    assert not house.request("GET", "/wharfie/plugins/volume.acme")[1]["Leaks"]


def test_doctor_lists_each_with_its_fault_and_what_mends_it(house: Daemon):
    command = [str(Path(sys.executable).with_name("wharfie")), "-H", f"unix://{house.socket}", "plugin", "doctor"]
    done = subprocess.run([*command, "--format", "json"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    said = {one["Subject"]: one for one in found}
    bad = {f"volume.{name}" for name in REFUSED if name not in ("openhangs", "openfails")}
    assert bad <= said.keys(), bad - said.keys()
    assert said["volume.twice"]["Command"].startswith("pip uninstall wharfie-twice")
    assert said["volume.future"]["Command"] == "pip install --upgrade wharfie-future"
    assert any(one["Subject"] == "volume.unfit" and one["Command"] == "modprobe acmefs" for one in found)
    assert not {one for one in said if one in ("volume.acme", "volume.local", "volume.good", "network.bridge")}
    good_ones_work(house, "doctor")


def test_the_end_waits_for_no_hanging_driver(house: Daemon):
    began = time.monotonic()
    house.docker("rm", "-f", "witness")
    house.stop()
    assert time.monotonic() - began < 45
    assert not house.processes()
