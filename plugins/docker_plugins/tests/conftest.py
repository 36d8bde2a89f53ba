"""Real legacy plugins in processes of their own, and the adapters as the engine makes them."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from wharfie_docker_plugins import hooks

from wharfie.spi.driver import Context, HostFacts

SERVER = Path(__file__).with_name("legacy_server.py")


class Server:
    """A running plugin."""

    def __init__(self, folder, name, implements, *flags, address=None):
        self.state = folder / f"{name}-state"
        self.state.mkdir(exist_ok=True)
        self.folder = folder / "plugins"
        self.folder.mkdir(exist_ok=True)
        self.address = str(address or self.folder / f"{name}.sock")
        self.command = [sys.executable, str(SERVER), self.address, str(self.state), "--implements", implements, *flags]
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def calls(self, *methods):
        """What it was asked: `(method, document)`; only these methods, without their prefix."""
        path = self.state / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [tuple(json.loads(line)) for line in lines]
        return [(method, asked) for method, asked in found if not methods or method.partition(".")[2] in methods]

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """Starts plugins: `plugins(name, implements, *flags)`."""
    (tmp_path / "plugins").mkdir()
    monkeypatch.setenv("WHARFIE_DOCKER_PLUGIN_DIRS", str(tmp_path / "plugins"))
    monkeypatch.setattr(hooks, "_HANDSHAKES", hooks.Handshakes())
    servers = []

    def start(name, implements, *flags, **options):
        servers.append(Server(tmp_path, name, implements, *flags, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def make(tmp_path):
    """An open adapter: `make(kind, name)`, each time a new one on the same folders, as after a start of the daemon."""
    opened = []

    def open_driver(kind, name):
        found = hooks.find_driver(kind, name)
        assert found is not None
        state, run = tmp_path / "state" / kind / name, tmp_path / "run" / kind / name
        for folder in (state, run):
            folder.mkdir(parents=True, exist_ok=True)
        facts = HostFacts(kernel=(6, 1), architecture="amd64", cgroup="v1", cpus=2, memory=1 << 30)
        log = logging.getLogger("legacy")
        context = Context(state=state, run=run, instance="0" * 8, log=log, host=facts, emit=lambda event: None)
        driver = found(context, None)
        driver.open()
        opened.append(driver)
        return driver

    yield open_driver
    for driver in opened:
        driver.close()
