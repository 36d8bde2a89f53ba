"""Whatever a registry sends, an image is here whole and verified, or not at all."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from wharfie.spi.errors import InvalidArgument, Unavailable, WharfieError


def simple(make, **options):
    layout = make.Layout()
    layers = [make.tar_of({"a": os.urandom(200_000)}), make.tar_of({"b": b"b" * 1000})]
    layout.tag(layout.image(layers, **options), "1")
    return layout


def parts(layout):
    manifest = json.loads(layout.blobs[layout.index[0]["digest"]])
    return manifest, manifest["config"]["digest"], [layer["digest"] for layer in manifest["layers"]]


async def nothing_is_left(house, *, but_for_the_next_attempt: bool = False) -> None:
    assert house.images.list(all=True, filters={}) == []
    assert not house.blobs()
    assert bool(house.unfinished()) == but_for_the_next_attempt
    assert not await house.layers()
    assert json.loads((house.root / "content/index.json").read_text())["manifests"] == []


async def asked_for(server, digest) -> None:
    while not any(path.endswith(digest) for path, _ in server.seen):  # noqa: ASYNC110  # the server is a thread
        await asyncio.sleep(0.01)


def refused(with_house, address, message) -> None:
    async def work(house) -> None:
        with pytest.raises(WharfieError, match=message) as caught:
            await house.pull(f"{address}/x", "1")
        broke_off = isinstance(caught.value.__cause__, Unavailable)
        await nothing_is_left(house, but_for_the_next_attempt=broke_off)

    with_house(work)


@pytest.mark.parametrize("which", ["config", "layer"])
def test_a_blob_of_another_content(with_house, make, liar, which) -> None:
    layout = simple(make)
    _, config, layers = parts(layout)
    blob = config if which == "config" else layers[1]
    layout.blobs[blob] = layout.blobs[blob][:-1] + b"!"
    refused(with_house, liar(layout).address, "verification failed for digest")


def test_a_blob_that_is_longer_than_said(with_house, make, liar) -> None:
    layout = simple(make)
    _, _, layers = parts(layout)
    layout.blobs[layers[0]] += b"more"
    server = liar(layout)

    async def work(house) -> None:  # what is past the end is never read
        await house.pull(f"{server.address}/x", "1")

    with_house(work)


def test_a_blob_that_is_shorter_than_said(with_house, make, liar) -> None:
    layout = simple(make)
    _, _, layers = parts(layout)
    layout.blobs[layers[0]] = layout.blobs[layers[0]][:-10]
    refused(with_house, liar(layout).address, "unexpected EOF|unexpected HTTP status")


def with_manifest(make, change):
    """An image whose manifest was changed before it got its digest."""
    layout = simple(make)
    manifest, _, _ = parts(layout)
    document = change(manifest) or manifest
    layout.index[0] = layout.blob(json.dumps(document).encode(), manifest["mediaType"])
    return layout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: manifest["layers"].pop(), "layers from manifest don't match image configuration"),
        (lambda manifest: manifest["layers"][0].update(digest="sha256:../../../etc/passwd"), "has the digest"),
        (lambda manifest: manifest["layers"][0].update(digest="md5:" + "0" * 32), "has the digest"),
        (lambda manifest: manifest["layers"][0].update(size=-1), "has the size"),
        (lambda manifest: manifest["layers"][0].update(size=1), "longer than|verification failed|unexpected EOF"),
        (lambda manifest: manifest["layers"][0].update(size="9"), "has the size"),
        (lambda manifest: manifest["config"].update(size=1 << 40), "the limit is"),
        (lambda manifest: manifest.update(manifests=[]), "ambiguous manifest"),
        (lambda manifest: manifest["layers"].extend(manifest["layers"] * 100), "max depth exceeded"),
        (lambda manifest: manifest["config"].update(mediaType="application/vnd.cncf.helm.config.v1+json"), "not an image"),
        (lambda manifest: manifest["layers"].reverse(), "the image's configuration says"),
        (lambda manifest: {"schemaVersion": 1, "fsLayers": [], "mediaType": ""}, "unsupported manifest media type"),
    ],
)
def test_manifests_that_cannot_be(with_house, make, liar, change, message) -> None:
    def changed(manifest):
        result = change(manifest)
        return result if isinstance(result, dict) and "schemaVersion" in result else None

    refused(with_house, liar(with_manifest(make, changed)).address, message)


def test_a_manifest_that_is_not_what_its_digest_says(with_house, make, liar) -> None:
    layout = simple(make)
    digest = layout.index[0]["digest"]
    layout.blobs[digest] += b" "
    server = liar(layout)

    async def work(house) -> None:
        with pytest.raises(InvalidArgument, match="manifest verification failed for digest"):
            await house.pull(f"{server.address}/x", digest)
        await nothing_is_left(house)

    with_house(work)


@pytest.mark.parametrize(
    "layer",
    [b"no tar" * 500, gzip.compress(b"x" * 3000)[:-100], gzip.compress(b"no tar" * 500)],
    ids=["raw", "cut", "gzip"],
)
def test_layers_that_are_no_tars(with_house, make, liar, layer) -> None:
    layout = make.Layout()
    layout.tag(layout.image([b"no tar" * 500], compress=lambda _: layer), "1")
    refused(with_house, liar(layout).address, "tar|EOF|configuration says")


def test_a_layer_of_another_diff_id(with_house, make, liar) -> None:
    layout = make.Layout()
    other = gzip.compress(make.tar_of({"b": b"2"}))
    layout.tag(layout.image([make.tar_of({"a": b"1"})], compress=lambda _: other), "1")
    refused(with_house, liar(layout).address, "the image's configuration says")


def test_a_connection_that_breaks_once_is_resumed(with_house, make, liar) -> None:
    layout = simple(make)
    _, _, layers = parts(layout)
    server = liar(layout)
    broken = threading.Event()

    def tamper(handler, path) -> bool:
        if path.endswith(layers[0]) and not broken.is_set():
            broken.set()
            server.break_off(handler, layout.blobs[layers[0]], 150_000)
            return True
        return False

    server.tamper = tamper

    async def work(house) -> None:
        said = await house.pull(f"{server.address}/x", "1")
        assert any(line["status"] == "Retrying in 1 second" for line in said)
        asked = [offset for path, offset in server.seen if path.endswith(layers[0])]
        assert asked == ["", "bytes=150000-"]
        assert house.unfinished() == []

    with_house(work)


def test_a_connection_that_always_breaks_is_an_error(with_house, make, liar) -> None:
    layout = simple(make)
    _, _, layers = parts(layout)
    server = liar(layout)

    def tamper(handler, path) -> bool:
        if path.endswith(layers[0]):
            server.break_off(handler, layout.blobs[layers[0]], 1000)
            return True
        return False

    server.tamper = tamper
    refused(with_house, server.address, "unexpected EOF")
    assert len([path for path, _ in server.seen if path.endswith(layers[0])]) == 3


def test_a_cancelled_pull_goes_on_the_next_time(with_house, make, liar) -> None:
    layout = simple(make)
    _, _, layers = parts(layout)
    server = liar(layout)
    release = threading.Event()

    def tamper(handler, path) -> bool:
        if path.endswith(layers[0]):
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(layout.blobs[layers[0]])))
            handler.end_headers()
            handler.wfile.write(layout.blobs[layers[0]][:1000])
            handler.wfile.flush()
            release.wait(20)
            return True
        return False

    server.tamper = tamper

    async def work(house) -> None:
        pull = asyncio.create_task(house.pull(f"{server.address}/x", "1"))
        await asked_for(server, layers[0])
        await asyncio.sleep(0.1)
        pull.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pull
        release.set()
        await nothing_is_left(house, but_for_the_next_attempt=True)
        server.tamper = lambda handler, path: False
        server.seen.clear()
        await house.pull(f"{server.address}/x", "1")
        # The configuration and the other layer were there, and a thousand bytes of this one.
        assert [(path.rpartition("/")[2], ranges) for path, ranges in server.seen if "/blobs/" in path] == [
            (layers[0], "bytes=1000-")
        ]
        assert not house.unfinished()

    with_house(work)


def test_one_of_two_pulls_is_cancelled_and_the_other_goes_on(with_house, make, liar) -> None:
    layout = simple(make)
    _, _, layers = parts(layout)
    server = liar(layout)
    release = threading.Event()

    def tamper(handler, path) -> bool:
        if path.endswith(layers[0]):
            release.wait(20)
        return False

    server.tamper = tamper

    async def work(house) -> None:
        first = asyncio.create_task(house.pull(f"{server.address}/x", "1"))
        await asked_for(server, layers[0])
        said: list[dict[str, Any]] = []
        pull = house.images.pull(f"{server.address}/x", "1", platform="", auth=None, progress=said.append)
        second = asyncio.create_task(pull)
        # Looked at again and again, since progress comes by a callback.
        while ("Downloading", layers[0][7:19]) not in {(line["status"], line.get("id")) for line in said}:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        release.set()
        await second
        assert len([path for path, _ in server.seen if path.endswith(layers[0])]) == 1
        house.images.get(f"{server.address}/x:1")

    with_house(work)


def test_too_many_requests_is_waited_for(with_house, make, liar) -> None:
    layout = simple(make)
    server = liar(layout)
    refusals = iter([True, True])

    def tamper(handler, path) -> bool:
        if next(refusals, False):
            server.reply(handler, 429, Retry_After="0")
            return True
        return False

    server.tamper = tamper

    async def work(house) -> None:
        await house.pull(f"{server.address}/x", "1")

    with_house(work)


def test_killed_in_the_middle_it_goes_on_where_it_was(with_house, make, liar, root) -> None:
    layout = simple(make)
    _, _, layers = parts(layout)
    server = liar(layout)
    release = threading.Event()

    def stall(handler, path) -> bool:
        if path.endswith(layers[0]):
            data = layout.blobs[layers[0]]
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data[:100_000])
            handler.wfile.flush()
            release.wait(20)
            return True
        return False

    server.tamper = stall
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.images.killed", root, f"{server.address}/x"],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"begun\n"
    partial = root / "content/ingest" / layers[0][7:]
    for _ in range(1000):
        if partial.exists() and partial.stat().st_size == 100_000:
            break
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    release.set()

    async def work(house) -> None:
        assert house.images.list(all=True, filters={}) == []
        assert not house.blobs()
        assert not await house.layers() & house.images.wanted_layers()
        await house.pull(f"{server.address}/x", "1")
        assert (f"/v2/x/blobs/{layers[0]}", "bytes=100000-") in server.seen
        assert house.unfinished() == []

    server.tamper = lambda handler, path: False
    with_house(work)
