"""Pulls that end at random instants: the store stays valid, and the next pull fetches only what is missing.

WHARFIE_INTERRUPTED_PULLS: how often in each way; 2, to be quick, unless it says more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.images.conftest import House
from wharfie.spi.errors import WharfieError
from wharfie.spi.storage import StorageDriver

COUNT = int(os.environ.get("WHARFIE_INTERRUPTED_PULLS", "2"))
SEED = int(os.environ.get("WHARFIE_SEED", "20"))
BLOB = 400_000
FILES = 40


@pytest.fixture
def image(make, liar):
    """Four layers at a scripted registry that takes its time."""
    layout = make.Layout()
    source = random.Random(SEED)
    layers = [
        make.tar_of({f"folder{number}/file{at}": source.randbytes(BLOB // FILES) for at in range(FILES)})
        for number in range(4)
    ]
    layout.tag(layout.image(layers), "1")
    return layout, liar(layout)


def on_disk(root: Path) -> dict[str, int]:
    """Bytes that are there already, by digest."""
    found = {}
    for folder in ("blobs/sha256", "ingest"):
        for path in (root / "content" / folder).glob("*"):
            if len(path.name) == 64:
                found[f"sha256:{path.name}"] = path.stat().st_size
    return found


def fetched(server) -> dict[str, list[int]]:
    """Where each fetch of a blob began."""
    begins: dict[str, list[int]] = {}
    for path, ranges in server.seen:
        if "/blobs/" in path:
            begin = int(ranges.removeprefix("bytes=").rstrip("-") or 0)
            begins.setdefault(path.rpartition("/")[2], []).append(begin)
    return begins


def goes_on(root: Path, layout, server) -> None:
    """The store is valid, and a second pull fetches what is missing and no byte more."""
    before = on_disk(root)
    server.seen.clear()

    async def work() -> None:
        async with House(root) as house:
            assert not (await house.images.verify(lambda line: None)).damaged
            await house.pull(f"{server.address}/x", "1")
            findings = await house.images.verify(lambda line: None)
            assert (findings.damaged, findings.blobs) == ([], 6)
            assert not house.unfinished()
            assert len(await house.layers()) == 4
            await nothing_half_made(house)

    asyncio.run(work())
    blobs = {digest: len(data) for digest, data in layout.blobs.items() if digest != layout.index[0]["digest"]}
    expected = {digest: [before.get(digest, 0)] for digest, size in blobs.items() if before.get(digest, 0) < size}
    assert fetched(server) == expected


async def nothing_half_made(house) -> None:
    """The driver has four layers and no file else, once it has done what a daemon asks of it when it starts."""
    storage = await house.drivers.get(StorageDriver, "overlay2")
    assert not await storage.call(StorageDriver.reconcile, house.images.wanted_layers())
    (state,) = house.root.glob("drivers/**/layers")
    until = time.monotonic() + 30
    while list(state.parent.glob("trash/*")) and time.monotonic() < until:  # noqa: ASYNC110  # it is emptied by a thread
        await asyncio.sleep(0.05)
    left = {
        folder: len(list(state.parent.glob(f"{folder}/*"))) for folder in ("layers", "l", "snapshots", "staging", "trash")
    }
    assert left == {"layers": 4, "l": 4, "snapshots": 0, "staging": 0, "trash": 0}
    assert all((layer / "diff").is_dir() and (layer / "layer.json").is_file() for layer in state.iterdir())


def slowly(server):
    """Serve blobs in pieces with pauses."""

    def tamper(handler, path) -> bool:
        data = server.layout.blobs.get(path.rpartition("/")[2])
        if "/blobs/" not in path or data is None:
            return False
        start = int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(data) - start))
        handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.end_headers()
        for at in range(start, len(data), 50_000):
            handler.wfile.write(data[at : at + 50_000])
            time.sleep(0.02)
        return True

    return tamper


@pytest.mark.root
def test_killed_at_random_instants(image, tmp_path) -> None:
    layout, server = image
    source = random.Random(SEED)
    for number in range(COUNT):
        root = tmp_path / str(number)
        root.mkdir()
        server.tamper = slowly(server)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.images.killed", root, f"{server.address}/x"],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert process.stdout is not None
        with process.stdout as output:
            assert output.readline() == b"begun\n"
            time.sleep(source.uniform(0, 0.9))
            process.kill()
            process.wait()
        server.tamper = lambda handler, path: False
        goes_on(root, layout, server)


@pytest.mark.root
def test_connections_that_break_at_random_bytes(image, tmp_path) -> None:
    layout, server = image
    source = random.Random(SEED)
    for number in range(COUNT):
        root = tmp_path / str(number)
        root.mkdir()

        def tamper(handler, path) -> bool:
            data = layout.blobs.get(path.rpartition("/")[2])
            if "/blobs/" not in path or data is None or source.random() < 0.3:
                return False
            start = int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            whole = data[start:]
            place = {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            server.break_off(handler, whole, source.randrange(len(whole)), 206 if start else 200, **place)
            return True

        server.tamper = tamper

        async def broken(root: Path = root) -> None:
            async with House(root, attempts=1) as house:
                with contextlib.suppress(WharfieError):
                    await house.pull(f"{server.address}/x", "1")

        asyncio.run(broken())
        server.tamper = lambda handler, path: False
        goes_on(root, layout, server)


@pytest.mark.root
def test_a_disk_that_is_full_at_random_bytes(image, tmp_path) -> None:
    layout, server = image
    source = random.Random(SEED)
    disk, root = tmp_path / "disk", tmp_path / "mounted"
    root.mkdir()
    with disk.open("wb") as file:
        file.truncate(24 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", disk], check=True)
    subprocess.run(["mount", "-o", "loop", disk, root], check=True)
    try:
        for number in range(COUNT):
            data = root / str(number)
            data.mkdir()
            filler = root / "filler"
            free = os.statvfs(root).f_bavail * os.statvfs(root).f_frsize
            with filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, free - source.randrange(300_000, 3_000_000))

            async def full(data: Path = data) -> None:
                async with House(data) as house:
                    with pytest.raises(WharfieError):
                        await house.pull(f"{server.address}/x", "1")

            asyncio.run(full())
            filler.unlink()
            goes_on(data, layout, server)
            subprocess.run(["rm", "-rf", data], check=True)
    finally:
        subprocess.run(["umount", "-l", root], check=True)


def test_pulls_of_overlapping_images_fetch_each_blob_once(with_house, make, liar) -> None:
    layout = make.Layout()
    shared = [make.tar_of({f"shared{number}": os.urandom(50_000)}) for number in range(5)]
    descriptors = {}
    for number in range(10):
        own = make.tar_of({f"own{number}": os.urandom(20_000)})
        descriptors[str(number)] = layout.image([*shared[: 1 + number % 5], own])
    server = liar(layout)
    slow = slowly(server)

    def tamper(handler, path) -> bool:
        name = path.rpartition("/")[2]
        if name in descriptors:
            data = layout.blobs[descriptors[name]["digest"]]
            return not server.reply(handler, 200, data, Content_Type=descriptors[name]["mediaType"])
        return slow(handler, path)

    server.tamper = tamper

    async def work(house) -> None:
        await asyncio.gather(*(house.pull(f"{server.address}/x", tag) for tag in descriptors))
        assert len(house.images.list(all=True, filters={})) == 10

    with_house(work)
    counts = fetched(server)
    assert len(counts) == 5 + 10 + 10  # shared layers, own layers, configurations
    assert set(map(len, counts.values())) == {1}
