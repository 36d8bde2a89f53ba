"""The log driver `journald`, through the stock CLI, with a journald in a namespace of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.harness import Daemon, import_busybox, running, until

JOURNALD = Path("/usr/lib/systemd/systemd-journald")
NAMESPACE = f"wharfie-cli-{os.getpid()}"


@pytest.fixture
def journal():
    if not JOURNALD.exists():
        pytest.skip(f"needs {JOURNALD} (Debian: systemd)")
    process = subprocess.Popen([JOURNALD, NAMESPACE], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = Path(f"/run/systemd/journal.{NAMESPACE}")
    until((folder / "socket").exists, what="the journal's socket")
    yield
    process.terminate()
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)
    for place in ("/run/log/journal", "/var/log/journal"):
        for left in Path(place).glob(f"*.{NAMESPACE}"):
            shutil.rmtree(left, ignore_errors=True)


def test_output_goes_to_the_journal_and_comes_back(journal, tmp_path):
    config = {"log-driver": "journald", "drivers": {"log.journald": {"namespace": NAMESPACE}}}
    with running(Daemon(tmp_path / "daemon", config=config)) as daemon:
        import_busybox(daemon)
        daemon.docker("run", "--name", "talker", "busybox", "sh", "-c", "echo out; sleep 0.2; echo err >&2")
        until(lambda: "err" in daemon.docker("logs", "talker", both=True), what="the last line")
        assert daemon.docker("logs", "talker", both=True).split() == ["out", "err"]
        assert daemon.docker("logs", "--tail", "1", "talker", both=True) == "err"
        command = ["journalctl", f"--namespace={NAMESPACE}", "-q", "-o", "cat", "CONTAINER_NAME=talker"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["out", "err"]

        name = daemon.docker("run", "-d", "busybox", "sh", "-c", "while true; do date; sleep 0.05; done")
        follower = daemon.spawn_docker("logs", "-f", "--tail", "1", name)
        try:
            assert b":" in follower.stdout.readline()
            assert b":" in follower.stdout.readline()
            daemon.docker("rm", "-f", name)
            follower.wait(timeout=10)
        finally:
            follower.kill()
            follower.communicate()
