"""The daemon is killed in the middle of a pull: what the next one finds, and what a pull then still fetches.

WHARFIE_INTERRUPTED_PULLS: how often; 1, to be quick, unless it says more.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.harness import Daemon
from tests.images.conftest import Layout, Liar, tar_of

COUNT = int(os.environ.get("WHARFIE_INTERRUPTED_PULLS", "1"))
PIECE = 40_000


@pytest.fixture
def image():
    """Four layers at a scripted registry that takes a second for them."""
    layout = Layout()
    source = random.Random(4)
    layers = [tar_of({f"folder{number}/file{at}": source.randbytes(10_000) for at in range(60)}) for number in range(4)]
    layout.tag(layout.image(layers), "1")
    server = Liar(layout)
    yield layout, server
    server.close()


def slow(layout, handler, path) -> bool:
    data = layout.blobs.get(path.rpartition("/")[2])
    if "/blobs/" not in path or data is None:
        return False
    start = int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
    handler.send_response(206 if start else 200)
    handler.send_header("Content-Length", str(len(data) - start))
    handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
    handler.end_headers()
    for at in range(start, len(data), PIECE):
        handler.wfile.write(data[at : at + PIECE])
        time.sleep(0.05)
    return True


def verified(daemon: Daemon) -> str:
    program = Path(sys.executable).with_name("wharfie")
    command = [program, "content", "verify"]
    return subprocess.run(command, env=daemon.environment, capture_output=True, text=True, check=True).stdout


def test_the_daemon_is_killed_while_it_pulls(make_daemon, image) -> None:
    layout, server = image
    source = random.Random(7)
    for number in range(COUNT):
        server.tamper = lambda handler, path: slow(layout, handler, path)
        daemon = make_daemon(f"killed{number}", bridge=False, config={"bridge": "none"})
        pulling = daemon.spawn_docker("pull", f"{server.address}/x:1", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(source.uniform(0.1, 1.6))
        daemon.kill()
        pulling.wait()

        before = {
            path.name: path.stat().st_size for path in (daemon.data / "content").glob("*/**/*") if len(path.name) == 64
        }
        server.tamper = lambda handler, path: False
        server.seen.clear()
        daemon.start()
        assert "none damaged" in verified(daemon)
        daemon.docker("pull", f"{server.address}/x:1")
        asked = {
            path.rpartition(":")[2]: int(ranges.removeprefix("bytes=").rstrip("-") or 0)
            for path, ranges in server.seen
            if "/blobs/" in path
        }
        missing = {
            digest.removeprefix("sha256:"): before.get(digest.removeprefix("sha256:"), 0)
            for digest, data in layout.blobs.items()
            if digest != layout.index[0]["digest"] and before.get(digest.removeprefix("sha256:"), 0) < len(data)
        }
        assert asked == missing
        assert verified(daemon).startswith("6 blobs, ")
        assert not list((daemon.data / "content/ingest").iterdir())
        (layers,) = daemon.data.glob("**/overlay2/layers")
        assert len(list(layers.iterdir())) == 4
        assert not list((layers.parent / "staging").iterdir())
        daemon.docker("rmi", f"{server.address}/x:1")
        assert not list((daemon.data / "content/blobs/sha256").iterdir())
        daemon.close()
