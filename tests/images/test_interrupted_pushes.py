"""Pushes to a registry that dies in the middle: what is said, what is sent the next time, and that nothing is left over.

WHARFIE_INTERRUPTED_PUSHES: how often in each way; 2, to be quick, unless it says more.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images.test_artifacts import pulled, tar_of
from tests.images.test_push import pieces, push
from tests.registries import Broken, Exchange, Proxy, Registry
from wharfie.engine.images import documents
from wharfie.engine.images.artifacts import ArtifactRequest
from wharfie.spi.errors import WharfieError

COUNT = int(os.environ.get("WHARFIE_INTERRUPTED_PUSHES", "2"))
SEED = int(os.environ.get("WHARFIE_SEED", "9"))
SIZES = (300_000, 900_000, 600_000)
PIECE = 1 << 15


@pytest.fixture
def peer(tmp_path: Path, monkeypatch) -> Iterator[tuple[Registry, Proxy]]:
    """A registry of the test's own, behind a proxy; nobody is patient."""
    monkeypatch.setattr("wharfie.engine.images.download._FIRST_DELAY", 0.01)
    registry = Registry(tmp_path / "registry")
    proxy = Proxy(registry, piece=PIECE)
    yield registry, proxy
    proxy.close()
    registry.close()


@pytest.fixture
def small_peer(tmp_path: Path, monkeypatch) -> Iterator[tuple[Registry, Proxy]]:
    """Its disk has room for a part of the image."""
    monkeypatch.setattr("wharfie.engine.images.download._FIRST_DELAY", 0.01)
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1300k", "tmpfs", disk], check=True)
    registry = Registry(disk / "registry")
    proxy = Proxy(registry, piece=PIECE)
    try:
        yield registry, proxy
    finally:
        proxy.close()
        registry.close()
        subprocess.run(["umount", "-l", disk], check=True)


class Fault:
    """Ends what is sent after `left` bytes, once (`again` False) or from then on."""

    def __init__(self, registry: Registry, proxy: Proxy, kind: str, left: int, *, again: bool = True) -> None:
        self.happened = False
        self._registry = registry
        self._proxy = proxy
        self._kind = kind
        self._left = left
        self._again = again
        self._lock = threading.Lock()
        proxy.passing = self._pass

    def _pass(self, exchange: Exchange, count: int) -> None:
        if exchange.method != "PATCH":
            return
        with self._lock:
            self._left -= count
            if self._left > 0 or (self.happened and not self._again):
                return
            if not self.happened and self._kind == "killed":
                self._registry.kill()
            if self._again:
                self._proxy.refuse = self._refuse
            self.happened = True
        raise Broken

    def _refuse(self, exchange: Exchange) -> int:
        if self._kind == "refused":
            return 503
        raise Broken


SAID = {
    "killed": r"Get .*/v2/\": (unexpected EOF|http: server gave|dial tcp)|unexpected EOF",
    "reset": "unexpected EOF",
    "refused": "received unexpected HTTP status: 503 Service Unavailable",
}


def there(registry: Registry, name: str, digests) -> set[str]:
    """Which of these blobs the registry has."""
    found = set()
    for digest in digests:
        request = urllib.request.Request(f"http://{registry.address}/v2/{name}/blobs/{digest}", method="HEAD")
        with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request, timeout=30):
            found.add(digest)
    return found


def sent(proxy: Proxy) -> set[str]:
    """Blobs whose upload was completed."""
    done = [exchange for exchange in proxy.seen if exchange.method == "PUT" and exchange.status == 201]
    return {exchange.path.rpartition("digest=")[2].replace("%3A", ":") for exchange in done if "digest=" in exchange.path}


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def grow(registry: Registry) -> None:
    subprocess.run(["mount", "-o", "remount,size=8m", registry.store.parents[1]], check=True)


@pytest.fixture
def image(make, liar):
    layout = make.Layout()
    source = random.Random(SEED)
    layout.tag(layout.image([make.tar_of({f"f{at}": source.randbytes(size)}) for at, size in enumerate(SIZES)]), "1")
    return layout, liar(layout)


@pytest.mark.root
@pytest.mark.parametrize("kind", ["killed", "reset", "refused"])
def test_the_next_push_sends_what_is_missing(with_house, peer, image, kind) -> None:
    registry, proxy = peer
    layout, origin = image
    manifest = layout.index[0]["digest"]
    blobs = layout.blobs.keys() - {manifest}
    source = random.Random(f"{SEED}{kind}")

    async def work(house) -> None:
        await house.pull(f"{origin.address}/x", "1")
        held = 0
        for number in range(COUNT):
            name = f"team/app{number}"
            here = f"{proxy.address}/{name}"
            await house.images.tag(f"{origin.address}/x:1", here, "1")
            left = source.randrange(1, sum(SIZES))
            fault = Fault(registry, proxy, kind, left)
            with pytest.raises(WharfieError, match=SAID[kind]):
                await push(house, here, "1")
            assert fault.happened
            assert not house.unfinished()
            proxy.heal()
            if kind == "killed":
                registry.start()
            before = there(registry, name, blobs)
            assert (await push(house, here, "1"))[-2]["status"].startswith(f"1: digest: {manifest} ")
            assert sent(proxy) == blobs - before
            uploaded = sum(exchange.sent for exchange in proxy.seen if exchange.method == "PATCH")
            assert uploaded == sum(len(layout.blobs[digest]) for digest in blobs - before)
            print(f"{number + 1:2} {kind} after {left} bytes: {len(before)} of {len(blobs)} blobs were there")
            if number == 0:
                held = descriptors()  # connections that are kept
            await house.images.remove(f"{here}:1", force=False, prune=True)
        assert descriptors() <= held + 4

    with_house(work)


@pytest.mark.root
def test_a_push_survives_one_reset(with_house, peer, image) -> None:
    """The blob whose connection broke goes on, or begins anew where the registry forgot it, as Debian's does; no other."""
    registry, proxy = peer
    layout, origin = image
    source = random.Random(SEED)

    async def work(house) -> None:
        await house.pull(f"{origin.address}/x", "1")
        for number in range(COUNT):
            here = f"{proxy.address}/again{number}"
            await house.images.tag(f"{origin.address}/x:1", here, "1")
            proxy.heal()
            fault = Fault(registry, proxy, "reset", source.randrange(1, sum(SIZES)), again=False)
            await push(house, here, "1")
            assert fault.happened
            assert sent(proxy) == layout.blobs.keys() - {layout.index[0]["digest"]}
            begun = [exchange for exchange in proxy.seen if exchange.method == "POST"]
            assert len(begun) <= 5
            await house.images.remove(f"{here}:1", force=False, prune=True)

    with_house(work)


@pytest.mark.root
def test_a_registry_whose_disk_is_full(with_house, small_peer, image) -> None:
    """Nor is it later taken for having what it has in pieces."""
    registry, proxy = small_peer
    _, origin = image
    here = f"{proxy.address}/full"

    async def work(house) -> None:
        await house.pull(f"{origin.address}/x", "1")
        await house.images.tag(f"{origin.address}/x:1", here, "1")
        with pytest.raises(
            WharfieError,
            match=r"\A(unknown: unknown error|the registry .* forgot the upload|received unexpected HTTP status: 500)",
        ):
            await push(house, here, "1")
        proxy.heal()
        assert not house.unfinished()
        grow(registry)
        assert (await push(house, here, "1"))[-2]["status"].startswith("1: digest: ")

    with_house(work)


@pytest.mark.root
@pytest.mark.parametrize("kind", ["killed", "reset", "refused"])
def test_the_next_push_of_an_artifact_sends_what_is_missing(with_house, peer, kind) -> None:
    registry, proxy = peer
    name = f"{proxy.address}/team/files:1"
    source = random.Random(f"{SEED}{kind}")
    files = {f"f{at}": source.randbytes(size) for at, size in enumerate(SIZES)}

    async def work(house) -> None:
        async def put() -> None:
            body = pieces(tar_of(**files))
            await house.images.artifacts.push(name, body, ArtifactRequest(), None, lambda line: None)

        fault = Fault(registry, proxy, kind, source.randrange(SIZES[0] + 1, sum(SIZES)))
        with pytest.raises(WharfieError, match=SAID[kind]):
            await put()
        assert fault.happened
        assert not house.unfinished()
        proxy.heal()
        if kind == "killed":
            registry.start()
        blobs = {documents.digest_of(data) for data in files.values()}
        before = there(registry, "team/files", blobs)
        assert before
        await put()
        assert sent(proxy) - {documents.digest_of(b"{}")} == blobs - before
        assert await pulled(house, name) == files

    with_house(work)
