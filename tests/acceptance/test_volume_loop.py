"""Volumes with a hard limit, through the stock CLI."""

from __future__ import annotations

import json
from pathlib import Path

from tests.harness import until


def test_a_container_meets_the_limit_and_only_there(daemon, name):
    assert daemon.docker("volume", "create", "-d", "loop", "-o", "size=8m", name) == name
    fill = "dd if=/dev/zero of=/data/big bs=1M count=32; echo full; rm /data/big; echo fine > /data/file"
    output = daemon.docker("run", "--rm", "-v", f"{name}:/data", "busybox", "sh", "-c", fill, both=True)
    assert "No space left on device" in output
    assert daemon.docker("run", "--rm", "-v", f"{name}:/data", "busybox", "cat", "/data/file") == "fine"
    document = json.loads(daemon.docker("volume", "inspect", name))[0]
    assert (document["Driver"], document["Options"]) == ("loop", {"size": "8m"})
    assert not [line for line in daemon.mounts() if name in line]
    daemon.docker("volume", "rm", name)
    until(lambda: name not in _backing_files(), what="the end of the loop device")


def _backing_files() -> str:
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found.append(path.read_text())
        except OSError:
            continue
    return "".join(found)
