"""A real journald of the tests' own: a journal namespace, in which it needs no systemd beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

JOURNALD = Path("/usr/lib/systemd/systemd-journald")
NAMESPACE = f"wharfie-test-{os.getpid()}"
SOCKET = Path(f"/run/systemd/journal.{NAMESPACE}/socket")


class Journal:
    namespace = NAMESPACE
    socket = SOCKET

    def start(self):
        self.process = subprocess.Popen([JOURNALD, NAMESPACE], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not SOCKET.exists():
            assert time.monotonic() < deadline, "journald does not listen"
            time.sleep(0.01)

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def entries(self, *matches):
        command = ["journalctl", f"--namespace={NAMESPACE}", "--quiet", "--all", "--output=json", *matches]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()


@pytest.fixture(scope="session")
def journal():
    if not JOURNALD.exists():
        pytest.skip(f"needs {JOURNALD} (Debian: systemd)")
    found = Journal()
    found.start()
    yield found
    found.stop()
    shutil.rmtree(SOCKET.parent, ignore_errors=True)
    for folder in ("/run/log/journal", "/var/log/journal"):
        for left in Path(folder).glob(f"*.{NAMESPACE}"):
            shutil.rmtree(left, ignore_errors=True)
