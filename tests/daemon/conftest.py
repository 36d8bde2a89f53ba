"""Daemons as processes, without any network of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

WHARFIED = [sys.executable, "-m", "wharfie.daemon"]


class Process:
    """One daemon. Its folders may outlive it, so that another one can be started on them."""

    def __init__(self, root: Path, *arguments: str, command: list[str] | None = None, env: dict[str, str] | None = None):
        self.root = root
        self.socket = root / "api.sock"
        self.log = root / "log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(command or WHARFIED),
                    *("--data-root", str(root / "data"), "--exec-root", str(root / "run")),
                    *("--host", f"unix://{self.socket}", "--bridge", "none", *arguments),
                ],
                stderr=log,
                env=os.environ | (env or {}),
            )

    def wait_ready(self) -> Process:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                assert self.get("/_ping")[0] == 200
            except (FileNotFoundError, ConnectionError):
                time.sleep(0.01)
            else:
                return self
        raise AssertionError(self.log.read_text())

    def get(self, path: str) -> tuple[int, bytes]:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(self.socket))
            client.sendall(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
            data = b""
            while piece := client.recv(65536):
                data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        return int(head.split()[1]), body

    def json(self, path: str) -> object:
        status, body = self.get(path)
        assert status == 200, body
        return json.loads(body)

    def end(self, number: int = signal.SIGTERM) -> int:
        """The exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(20)

    def until_logged(self, text: str) -> None:
        deadline = time.monotonic() + 10
        while text not in self.log.read_text():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder with a short name: a socket's path has 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="wh-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def start(root: Path) -> Iterator[Callable[..., Process]]:
    """Start a daemon on the test's folder; whatever is left of it ends with the test."""
    started: list[Process] = []

    def begin(*arguments: str, **options: object) -> Process:
        started.append(Process(root, *arguments, **options))  # type: ignore[arg-type]
        return started[-1]

    yield begin
    for process in started:
        process.end()
