"""`wharfie plugin …` and the API below it, on a real daemon and without one."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Daemon, import_busybox, running, until
from tests.strangers import STRANGERS, build_wheel

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("acme")
    build_wheel(STRANGERS / "wharfie-acme", target)
    return target


@pytest.fixture(scope="module")
def daemon(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    config = {"drivers": {"volume.acme": {"folder-mode": "0750", "isolate": True}}}
    made = Daemon(tmp_path_factory.mktemp("commands"), config=config)
    made.extra_environment = {"PYTHONPATH": str(wheel)}
    with running(made) as started:
        import_busybox(started)
        yield started


def wharfie(daemon: Daemon | Path, *words: str, status: int = 0) -> str:
    done = run_wharfie(daemon, *words)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def run_wharfie(daemon: Daemon | Path, *words: str) -> subprocess.CompletedProcess[str]:
    host = daemon if isinstance(daemon, Path) else daemon.socket
    command = [str(Path(sys.executable).with_name("wharfie")), "-H", f"unix://{host}", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)


def test_ls(daemon: Daemon):
    lines = wharfie(daemon, "plugin", "ls").splitlines()
    assert lines[0].split() == ["KIND", "NAME", "VERSION", "DISTRIBUTION", "ENABLED", "STATE", "CAUSE"]
    assert ["volume", "acme", "0.3", "wharfie-acme", "true", "installed"] in [line.split() for line in lines]
    assert any(line.split()[:2] == ["network", "bridge"] and line.split()[-1] == "open" for line in lines)


def test_inspect_before_and_after_the_first_use(daemon: Daemon):
    before = json.loads(wharfie(daemon, "plugin", "inspect", "volume.acme", "--format", "json"))
    assert before["State"] == "installed" and before["Spi"] == "1.0" and before["Capabilities"] is None
    assert before["Settings"]["properties"]["folder-mode"]["default"] == "0755"
    daemon.docker("volume", "create", "-d", "acme", "data")
    after = json.loads(wharfie(daemon, "plugin", "inspect", "volume.acme", "--format", "json"))
    assert (after["State"], after["Capabilities"], after["UsedBy"]) == ("open", ["usage"], ["volume data"])
    assert after["Methods"]["create"] == {"Calls": 1, "Failures": 0, "Seconds": after["Methods"]["create"]["Seconds"]}
    assert after["Isolated"] and after["Pid"] and after["Settings"] == before["Settings"]
    shown = wharfie(daemon, "plugin", "inspect", "volume.acme")
    assert "folder-mode" in shown and '"0755"' in shown and "create" in shown and "120 s" in shown
    assert "overlay2" in wharfie(daemon, "plugin", "inspect", "storage.overlay2")
    assert "there is no driver" in run_wharfie(daemon, "plugin", "inspect", "volume.nobody").stderr
    daemon.docker("volume", "rm", "data")


def test_docker_info_shows_the_states(daemon: Daemon):
    text = daemon.docker("info")
    row = next(line for line in text.splitlines() if "Drivers open:" in line)
    assert "network.bridge" in row and "volume.acme" not in text.partition("Plugins:")[0].replace(row, "")


def test_disable_and_enable_take_effect_at_once_where_nobody_uses_the_driver(daemon: Daemon):
    before = json.loads((daemon.root / "daemon.json").read_text())
    assert "is disabled in" in wharfie(daemon, "plugin", "disable", "network.acmenet")
    assert json.loads((daemon.root / "daemon.json").read_text()) == before | {"disabled-plugins": ["network.acmenet"]}
    assert "disabled" in daemon.docker("network", "create", "-d", "acmenet", "n1", status=1, both=True)
    assert ["network", "acmenet", "0.3", "wharfie-acme", "false", "disabled"] in [
        line.split()[:6] for line in wharfie(daemon, "plugin", "ls").splitlines()
    ]
    assert "already" in wharfie(daemon, "plugin", "disable", "network.acmenet")
    assert "is enabled in" in wharfie(daemon, "plugin", "enable", "network.acmenet")
    daemon.docker("network", "create", "-d", "acmenet", "n1")
    in_use = run_wharfie(daemon, "plugin", "disable", "network.acmenet")
    assert in_use.returncode == 0 and "at the next start" in in_use.stderr
    daemon.docker("network", "rm", "n1")
    wharfie(daemon, "plugin", "enable", "network.acmenet")
    assert json.loads((daemon.root / "daemon.json").read_text()) == before | {"disabled-plugins": []}
    assert "there is no driver" in run_wharfie(daemon, "plugin", "disable", "network.nobody").stderr


def test_trace_shows_calls_as_they_end(daemon: Daemon, tmp_path: Path):
    daemon.docker("volume", "create", "-d", "acme", "t1")
    command = [str(Path(sys.executable).with_name("wharfie")), "-H", f"unix://{daemon.socket}"]
    output = tmp_path / "trace"
    with output.open("w") as file, subprocess.Popen([*command, "plugin", "trace", "volume.acme"], stdout=file) as tracer:
        made: list[str] = []
        try:

            def both() -> bool:
                made.append(daemon.docker("volume", "create", "-d", "acme", f"t2-{len(made)}"))
                daemon.docker("volume", "create", "-d", "acme", "-o", "nope=1", "t3", status=1)
                return "t2-" in output.read_text() and "InvalidArgument" in output.read_text()

            until(both)
        finally:
            tracer.send_signal(signal.SIGINT)
    line = next(line for line in output.read_text().splitlines() if "t2-" in line)
    assert line.split()[0] == "create" and line.split()[1] in made and line.endswith("ok") and " ms " in line
    daemon.docker("volume", "rm", "t1", *made)


def test_metrics(daemon: Daemon):
    daemon.docker("volume", "create", "-d", "acme", "m1")
    daemon.docker("volume", "create", "-d", "acme", "-o", "nope=1", "m2", status=1)
    status, headers, content = daemon.exchange("GET", "/wharfie/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = {}
    for line in content.decode().splitlines():
        assert re.fullmatch(r'(# (HELP|TYPE) \w+ .+|\w+\{(\w+="([^"\\]|\\.)*",?)+\} [\d.e+-]+)', line), line
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            samples[name] = float(value)
    create = 'driver="acme",kind="volume",method="create"'
    assert samples[f"wharfie_driver_calls_total{{{create}}}"] >= 2
    assert samples[f"wharfie_driver_failures_total{{{create}}}"] >= 1
    assert samples['wharfie_driver_circuit_open{driver="bridge",kind="network"}'] == 0
    assert samples['wharfie_driver_restarts_total{driver="acme",kind="volume"}'] == 0
    state = 'distribution="wharfie-acme",driver="acme",kind="volume",state="open",version="0.3"'
    assert samples[f"wharfie_driver_state{{{state}}}"] == 1
    daemon.docker("volume", "rm", "m1")


def test_doctor_says_what_fails_and_what_mends_it(daemon: Daemon):
    found = json.loads(run_wharfie(daemon, "plugin", "doctor", "--format", "json").stdout)
    assert not [
        one for one in found if one["Wrong"] and one["Subject"].startswith(("volume", "network.bridge", "storage.overlay2"))
    ]


def test_without_a_daemon_the_daemons_program_is_asked(tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(wheel))
    config = tmp_path / "daemon.json"
    settings = {"data-root": str(tmp_path / "data"), "default-volume-driver": "acne"}
    config.write_text(json.dumps(settings | {"drivers": {"volume.acme": {"folder-mode": "rwx"}}}))
    where = ("--config-file", str(config))
    done = run_wharfie(tmp_path / "none.sock", "plugin", "doctor", *where)
    assert done.returncode == 1 and "No engine answers" in done.stderr
    assert 'wrong  volume.acne: plugin "acne" not found' in done.stdout
    assert "run:  pip install wharfie-NAME" in done.stdout
    assert "wrong  volume.acme: drivers.volume.acme.folder-mode: 'rwx' is not valid" in done.stdout
    assert not (tmp_path / "data").exists()
    config.write_text(json.dumps({"data-root": str(tmp_path / "data"), "drivers": {"volume.acme": {}}}))
    found = json.loads(run_wharfie(tmp_path / "none.sock", "plugin", "doctor", *where, "--format", "json").stdout)
    assert not [one for one in found if one["Subject"] == "volume.acme"]
    assert "is disabled in" in wharfie(tmp_path / "none.sock", "plugin", "disable", "volume.acme", *where)
    assert json.loads(config.read_text())["disabled-plugins"] == ["volume.acme"]
    config.write_text("{")
    done = run_wharfie(tmp_path / "none.sock", "plugin", "doctor", *where)
    assert done.returncode == 1 and f"Correct {config}" in done.stdout
