"""A real daemon, Debian's registry, and pulls that end at random instants: by SIGKILL of the daemon, by a connection that
is reset, by a disk that is full. The store stays valid, and the next pull fetches what is missing, and no byte more.

WHARFIE_INTERRUPTED_PULLS: how often in each way; 1, to be quick, unless it says more. WHARFIE_SEED: other instants.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import Daemon, running, until
from tests.images.conftest import Layout, tar_of
from tests.registries import Broken, Exchange, Proxy, Registry, slowly

COUNT = int(os.environ.get("WHARFIE_INTERRUPTED_PULLS", "1"))
SEED = int(os.environ.get("WHARFIE_SEED", "4"))
LAYERS = (700_000, 250_000, 900_000, 400_000)
PIECE = 32_768
SAID = {
    "killed": "",
    "reset": "unexpected EOF|connection reset|received unexpected HTTP status",
    "full": "no space left on device",
}


class Place:
    """A daemon on a small disk of its own, and a registry behind a proxy, which has one image."""

    def __init__(self, daemon: Daemon, proxy: Proxy, layout: Layout) -> None:
        self.daemon = daemon
        self.proxy = proxy
        self.name = f"{proxy.address}/team/app:1"
        manifest = layout.index[0]["digest"]
        self.sizes = {digest: len(data) for digest, data in layout.blobs.items() if digest != manifest}
        self.content = daemon.data / "content"

    def here(self, *folders: str) -> dict[str, int]:
        """Bytes on the disk, by digest."""
        found = {}
        for folder in folders or ("blobs/sha256", "ingest"):
            for path in (self.content / folder).glob("*"):
                with contextlib.suppress(FileNotFoundError):
                    if len(path.name) == 64:
                        found[f"sha256:{path.name}"] = path.stat().st_size
        return found

    @contextlib.contextmanager
    def witness(self) -> Iterator[set[str]]:
        """Blobs that were seen verified meanwhile: they have a name in the store."""
        seen: set[str] = set()
        done = threading.Event()

        def look() -> None:
            while not done.wait(0.002):
                seen.update(self.here("blobs/sha256"))

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield seen
        finally:
            done.set()
            thread.join()

    def verified(self) -> str:
        program = Path(sys.executable).with_name("wharfie")
        words = [program, "content", "verify"]
        return subprocess.run(words, env=self.daemon.environment, capture_output=True, text=True, check=True).stdout

    def layers(self) -> dict[str, int]:
        (layers,) = self.daemon.data.glob("**/overlay2/layers")
        return {folder: len(list((layers.parent / folder).iterdir())) for folder in ("layers", "staging", "trash")}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("interrupted")
    source = random.Random(SEED)
    layout = Layout()
    tars = []
    for number, size in enumerate(LAYERS):
        tars.append(tar_of({f"folder{number}/{at}": source.randbytes(size // 20) for at in range(20)}))
    layout.tag(layout.image(tars), "1")
    disk, root = folder / "disk", folder / "mounted"
    root.mkdir()
    with disk.open("wb") as file:
        file.truncate(48 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", disk], check=True)
    subprocess.run(["mount", "-o", "loop", disk, root], check=True)
    registry = Registry(folder / "registry")
    proxy = Proxy(registry, piece=PIECE)
    try:
        registry.put(layout.blobs, layout.index[0], "team/app", "1")
        config = {"bridge": "none", "max-download-attempts": 2}
        with running(Daemon(root / "own", bridge=False, config=config)) as daemon:
            yield Place(daemon, proxy, layout)
    finally:
        proxy.close()
        registry.close()
        subprocess.run(["umount", "-l", root], check=True)


def killed(place: Place, instant: float) -> str:
    """The daemon, at this part of the time that the pull takes since its first request."""
    place.proxy.passing = slowly(0.04)
    pulling = place.daemon.spawn_docker("pull", place.name)
    until(lambda: place.proxy.seen, 60, "the first request")
    time.sleep(instant * 1.5)
    place.daemon.kill()
    pulling.communicate()
    return f"killed after {instant * 1.5:.2f} s"


def reset(place: Place, instant: float) -> str:
    """All connections to the registry, once this part of the image's bytes came through."""
    left = int(instant * sum(place.sizes.values()))
    text = f"reset after {left} bytes"
    lock = threading.Lock()

    def passing(exchange: Exchange, count: int) -> None:
        nonlocal left
        with lock:
            left -= count if exchange.is_blob else 0
            if left < 0:
                raise Broken

    place.proxy.passing = passing
    fails(place, "reset")
    return text


def full(place: Place, instant: float) -> str:
    """The disk, once this part of what the pull writes is on it: blobs, and layers of the same size."""
    room = int(instant * 2 * sum(place.sizes.values()))
    filler = place.daemon.root.parent / "filler"
    disk = os.statvfs(place.daemon.root)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - room)
    try:
        fails(place, "full")
    finally:
        filler.unlink()
    return f"full after {room} bytes"


def fails(place: Place, fault: str) -> None:
    done = place.daemon.run_docker("pull", place.name)
    assert done.returncode == 1, done.stdout
    assert re.search(SAID[fault], done.stderr.decode().splitlines()[-1]), done.stderr
    assert place.daemon.docker("images", "-q") == ""


@pytest.mark.root
@pytest.mark.timeout(120 + 30 * COUNT)
@pytest.mark.parametrize("fault", [killed, reset, full])
def test_the_next_pull_fetches_what_is_missing(place: Place, fault: Callable[[Place, float], str]) -> None:
    source = random.Random(f"{SEED}{fault.__name__}")
    for number in range(COUNT):
        place.proxy.heal()
        with place.witness() as verified:
            what = fault(place, source.uniform(0, 0.97))
        before = place.here()
        lost = {digest for digest in verified if before.get(digest) != place.sizes.get(digest, before.get(digest))}
        assert not lost, f"verified, and thrown away: {lost}"

        place.proxy.heal()
        if fault is killed:
            place.daemon.start()
        assert "none damaged" in place.verified()
        place.daemon.docker("pull", place.name)
        missing = {digest: [before.get(digest, 0)] for digest, size in place.sizes.items() if before.get(digest, 0) < size}
        assert place.proxy.fetched() == missing
        assert place.verified().startswith("6 blobs, ")
        assert not list((place.content / "ingest").iterdir())
        until(lambda: place.layers() == {"layers": 4, "staging": 0, "trash": 0}, 30, "nothing half-made")

        kept = sum(before.get(digest, 0) for digest in place.sizes)
        total = sum(place.sizes.values())
        parts = sum(0 < before.get(digest, 0) < size for digest, size in place.sizes.items())
        whole = len(place.sizes) - len(missing)
        print(f"{number + 1:2} {what}: {kept} of {total} bytes here, {whole} blobs whole, {parts} resumed by Range")
        place.daemon.docker("rmi", place.name)
        place.daemon.docker("image", "prune", "-f")
        assert not place.here()
