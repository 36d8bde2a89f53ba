"""`make demo` keeps its promises, and leaves nothing behind when it is cut off in the middle."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[1] / "scripts" / "demo.py"


_DOCKER = pytest.param("docker", marks=pytest.mark.skipif(not shutil.which("docker"), reason="there is no docker CLI here"))


@pytest.mark.parametrize("client", [_DOCKER, "wharfie"])
def test_every_step_and_nothing_left(client, tmp_path):
    result = _demo(client, tmp_path).communicate(timeout=100)[0]
    assert "All steps did what they promised" in result, result
    rows = re.findall(r"^(\S.*\S) +(\d+) +none *$", result, re.MULTILINE)
    counts = {name: int(count) for name, count in rows}
    assert counts.keys() == {
        *("processes", "mounts", "network interfaces", "nftables tables", "rules in others' chains"),
        *("cgroups", "files of objects"),
    }
    # The same eyes saw the objects while they were there.
    assert all(count for name, count in counts.items() if name != "rules in others' chains"), counts
    assert list(tmp_path.iterdir()) == []


def test_interrupted(tmp_path):
    process = _demo("wharfie", tmp_path)
    seen = ""
    assert process.stdout is not None
    for line in process.stdout:
        seen += line
        if "--name web" in line:
            break
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    seen += process.communicate(timeout=60)[0]
    assert process.returncode == 130, seen
    assert "still there" not in seen
    assert list(tmp_path.iterdir()) == []
    bridge = re.search(r"--bridge (\S+)", seen)
    assert bridge is not None
    assert not Path("/sys/class/net", bridge[1]).exists()
    assert list(Path("/sys/fs/cgroup").glob(f"*/{bridge[1]}")) == []


def _demo(client: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", DEMO, "--client", client],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
