"""Registries that want to harm: whatever they send, little is read, little memory taken, and one clear error comes."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import threading
import zlib
from pathlib import Path
from typing import Any

import pytest
import zstandard

from wharfie.spi.errors import InvalidArgument, OutOfSpace, Unavailable, WharfieError
from wharfie.spi.registry import Credentials

MEMORY_KB = 96 << 10
"""What a pull may add to a process."""

MEASURED = """
import asyncio, json, resource, sys
from pathlib import Path
from tests.images.conftest import House
from wharfie.spi.errors import WharfieError

async def main():
    async with House(Path(sys.argv[1])) as house:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            await house.pull(sys.argv[2], "1")
            said = ""
        except WharfieError as error:
            said = error.message
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        images = house.images.list(all=True, filters={})
        print(json.dumps([said, grown, len(house.blobs()), len(await house.layers()), len(images)]))

asyncio.run(main())
"""


def pulled_apart(root: Path, name: str) -> tuple[str, int]:
    """The error of a pull in a process of its own, and the memory that it took in kB; nothing may be left of it."""
    command = [sys.executable, "-c", MEASURED, str(root), name]
    output = subprocess.run(command, cwd=Path(__file__).parents[2], check=True, capture_output=True, text=True).stdout
    said, grown, *left = json.loads(output)
    assert left == [0, 0, 0]
    return said, grown


def endless(handler, piece: bytes, limit: int = 1 << 30) -> int:
    """Send without a length and without an end, until nobody listens; gives the bytes that went."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.close_connection = True
    sent = 0
    try:
        while sent < limit:
            handler.wfile.write(piece)
            sent += len(piece)
    except OSError:
        pass
    return sent


def image_of(make, layer: bytes, compress=gzip.compress):
    layout = make.Layout()
    layout.tag(layout.image([layer], compress=compress), "1")
    manifest = json.loads(layout.blobs[layout.index[0]["digest"]])
    return layout, manifest["layers"][0]["digest"]


@pytest.mark.root
@pytest.mark.parametrize("which", ["manifest", "token"])
def test_documents_that_do_not_end(make, liar, root, which) -> None:
    layout, _ = image_of(make, make.tar_of({"a": b"1"}))
    server = liar(layout)
    sent: list[int] = []

    def tamper(handler, path) -> bool:
        if "/token" in path:
            sent.append(endless(handler, b'{"token": "' + b"x" * 65536))
        elif "/manifests/" not in path:
            return False
        elif which == "token":
            challenge = f'Bearer realm="http://{server.address}/token",service="s"'
            server.reply(handler, 401, WWW_Authenticate=challenge)
        else:
            sent.append(endless(handler, b'{"schemaVersion": 2, "layers": [' + b" " * 65536))
        return True

    server.tamper = tamper
    said, grown = pulled_apart(root, f"{server.address}/x")
    assert which in said
    assert grown < MEMORY_KB
    assert sent
    assert max(sent) < 64 << 20


@pytest.mark.root
def test_a_manifest_of_a_hundred_megabytes(make, liar, root) -> None:
    layout, _ = image_of(make, make.tar_of({"a": b"1"}))
    manifest = json.loads(layout.blobs[layout.index[0]["digest"]])
    manifest["annotations"] = {"a": "x" * (100 << 20)}
    layout.index[0] = layout.blob(json.dumps(manifest).encode(), manifest["mediaType"])
    said, grown = pulled_apart(root, f"{liar(layout).address}/x")
    assert "manifest" in said
    assert "4194304" in said
    assert grown < MEMORY_KB


@pytest.mark.root
def test_a_layer_that_does_not_end(make, liar, root) -> None:
    layout, layer = image_of(make, make.tar_of({"a": os.urandom(1000)}))
    server = liar(layout)
    sent: list[int] = []

    def tamper(handler, path) -> bool:
        if path.endswith(layer):
            sent.append(endless(handler, bytes(65536)))
            return True
        return False

    server.tamper = tamper
    said, grown = pulled_apart(root, f"{server.address}/x")
    assert "verification failed for digest" in said
    assert grown < MEMORY_KB
    assert max(sent) < 64 << 20


@pytest.mark.root
def test_a_bomb_behind_the_end_of_the_archive(make, liar, root) -> None:
    bomb = make.tar_of({"a": b"1"}) + bytes(100 << 20)
    layout, _ = image_of(make, bomb, lambda data: gzip.compress(data, 1))
    said, grown = pulled_apart(root, f"{liar(layout).address}/x")
    assert "bytes after its end" in said
    assert grown < MEMORY_KB


@pytest.mark.root
def test_a_file_larger_than_the_disk_is_refused_before_it_is_written(with_house, make, liar) -> None:
    info = tarfile.TarInfo("bomb")
    info.size = 1 << 50
    layout, _ = image_of(make, info.tobuf(tarfile.GNU_FORMAT) + bytes(8 << 20))
    server = liar(layout)

    async def work(house) -> None:
        with pytest.raises(OutOfSpace, match=r'unpacking "bomb": it has 1125899906842624 bytes, and [0-9]+ are free'):
            await house.pull(f"{server.address}/x", "1")
        assert not house.blobs()
        assert not await house.layers()

    with_house(work)


@pytest.mark.root
def test_too_many_requests_for_a_blob(with_house, make, liar) -> None:
    layout, layer = image_of(make, make.tar_of({"a": b"1"}))
    server = liar(layout)
    refusals = iter([True, False])

    def tamper(handler, path) -> bool:
        if path.endswith(layer) and next(refusals, False):
            server.reply(handler, 429, Retry_After="1")
            return True
        return False

    server.tamper = tamper

    async def work(house) -> None:
        said = await house.pull(f"{server.address}/x", "1")
        assert [line["status"] for line in said if line["status"].startswith("Retrying")] == ["Retrying in 1 second"]

    with_house(work)


@pytest.mark.root
def test_too_many_requests_for_ever(with_house, make, liar) -> None:
    layout, layer = image_of(make, make.tar_of({"a": b"1"}))
    server = liar(layout)

    def tamper(handler, path) -> bool:
        if path.endswith(layer):
            server.reply(handler, 429, Retry_After="0")
            return True
        return False

    server.tamper = tamper

    async def work(house) -> None:
        with pytest.raises(WharfieError, match="toomanyrequests"):
            await house.pull(f"{server.address}/x", "1")
        assert len([path for path, _ in server.seen if path.endswith(layer)]) == 3
        assert not await house.layers()

    with_house(work)


@pytest.mark.root
@pytest.mark.parametrize("which", ["itself", "each other", "ever longer"])
def test_redirects_that_do_not_end(with_house, make, liar, which) -> None:
    layout, layer = image_of(make, make.tar_of({"a": b"1"}))
    server, other = liar(layout), liar(make.Layout())

    def tamper(handler, path) -> bool:
        if layer not in path:
            return False
        targets = {
            "itself": f"http://{server.address}{path}",
            "each other": f"http://{other.address}{path}",
            "ever longer": f"http://{server.address}{path}/x",
        }
        server.reply(handler, 307, Location=targets[which])
        return True

    def back(handler, path) -> bool:
        server.reply(handler, 307, Location=f"http://{server.address}{path}")
        return True

    server.tamper, other.tamper = tamper, back

    async def work(house) -> None:
        with pytest.raises(WharfieError, match="redirect"):
            await house.pull(f"{server.address}/x", "1")
        assert len(server.seen) + len(other.seen) < 50

    with_house(work)


@pytest.mark.root
def test_who_a_blob_is_redirected_to_gets_no_credentials(with_house, make, liar) -> None:
    layout, layer = image_of(make, make.tar_of({"a": b"1"}))
    server, elsewhere = liar(layout), liar(layout)
    secret = "Basic " + base64.b64encode(b"me:secret").decode()
    told: list[str | None] = []

    def guarded(handler, path) -> bool:
        if handler.headers.get("Authorization") != secret:
            server.reply(handler, 401, WWW_Authenticate='Basic realm="r"')
        elif path.endswith(layer):
            server.reply(handler, 307, Location=f"http://{elsewhere.address}/v2/x/blobs/{layer}")
        else:
            return False
        return True

    def note(handler, path) -> bool:
        told.extend(value for value in handler.headers.values() if "secret" in value or secret[6:] in value)
        told.append(handler.headers.get("Authorization"))
        return False

    server.tamper, elsewhere.tamper = guarded, note

    async def work(house) -> None:
        await house.pull(f"{server.address}/x", "1", auth=Credentials(username="me", password="secret"))
        assert told == [None]

    with_house(work)


# Formats of layers


def estargz(layer: bytes) -> bytes:
    """As the stargz snapshotter's document says: each entry in a gzip member of its own, then the table of contents as the
    last entry, then an empty member whose extra field says where that is."""
    out, names = io.BytesIO(), []
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        for member in tar:
            names.append({"name": member.name, "type": "reg", "size": member.size, "offset": out.tell()})
            content = tar.extractfile(member)
            data = content.read() if content else b""
            out.write(gzip.compress(member.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512), mtime=0))
    table = json.dumps({"version": 1, "entries": names}).encode()
    info = tarfile.TarInfo("stargz.index.json")
    info.size = len(table)
    offset = out.tell()
    out.write(gzip.compress(info.tobuf(tarfile.PAX_FORMAT) + table + bytes(-len(table) % 512) + bytes(1024), mtime=0))
    extra = struct.pack("<2sH", b"SG", 22) + b"%016xSTARGZ" % offset
    empty = zlib.compressobj(wbits=-15).flush()
    out.write(b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + struct.pack("<H", len(extra)) + extra + empty + bytes(8))
    return out.getvalue()


def zstd_with_a_table(layer: bytes) -> bytes:
    """zstd:chunked: frames, and what only some read in skippable frames before and behind."""
    half = len(layer) // 2
    skippable = struct.pack("<II", 0x184D2A50, 7) + b"ignored"
    frames = [zstandard.ZstdCompressor().compress(part) for part in (layer[:half], layer[half:])]
    return skippable + frames[0] + frames[1] + skippable


@pytest.mark.root
@pytest.mark.parametrize(
    ("compress", "media_type"),
    [
        (bytes, "application/vnd.oci.image.layer.v1.tar"),
        (bytes, "application/vnd.docker.image.rootfs.diff.tar"),
        (gzip.compress, "application/vnd.docker.image.rootfs.diff.tar.gzip"),
        (zstandard.ZstdCompressor().compress, "application/vnd.oci.image.layer.v1.tar+zstd"),
        (zstd_with_a_table, "application/vnd.oci.image.layer.v1.tar+zstd"),
        (estargz, "application/vnd.oci.image.layer.v1.tar+gzip"),
        (gzip.compress, "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
    ],
)
def test_formats_of_layers(with_house, make, liar, compress, media_type) -> None:
    layer = make.tar_of({f"file{number}": os.urandom(5000) for number in range(20)})
    blob = compress(layer)
    plain = layer
    if compress is estargz:  # its tar has the table too
        plain = zlib_all(blob)
    layout = make.Layout()
    layout.tag(layout.image([plain], compress=lambda _: blob), "1")
    document = json.loads(layout.blobs[layout.index[0]["digest"]])
    document["layers"][0]["mediaType"] = media_type
    layout.index[0] = layout.blob(json.dumps(document).encode(), document["mediaType"])
    server = liar(layout)

    async def work(house) -> None:
        await house.pull(f"{server.address}/x", "1")
        image = house.images.get(f"{server.address}/x:1")
        assert image.layers == [make.digest(plain)]
        assert image.size >= 100_000
        assert image.stack[0].media_type == media_type

    with_house(work)


def zlib_all(data: bytes) -> bytes:
    """All members of a gzip stream, read by another library than ours."""
    return gzip.GzipFile(fileobj=io.BytesIO(data)).read()


@pytest.mark.root
def test_a_layer_whose_download_breaks_for_good_leaves_no_half_layer(with_house, make, liar) -> None:
    """It was being unpacked while it arrived."""
    layout, layer = image_of(make, make.tar_of({f"file{number}": os.urandom(20_000) for number in range(100)}))
    server = liar(layout)

    def tamper(handler, path) -> bool:
        if path.endswith(layer):
            server.break_off(handler, layout.blobs[layer], len(layout.blobs[layer]) // 2)
            return True
        return False

    server.tamper = tamper

    async def work(house) -> None:
        with pytest.raises(WharfieError, match="unexpected EOF") as caught:
            await house.pull(f"{server.address}/x", "1")
        assert isinstance(caught.value.__cause__, Unavailable)
        assert not await house.layers()
        assert not list(house.root.glob("drivers/**/staging/*"))

    with_house(work)


@pytest.mark.root
def test_what_was_left_of_another_content_is_fetched_anew(with_house, make, liar, root) -> None:
    """The first half on the disk is wrong, which only the digest of all of it tells; a layer was made of it meanwhile."""
    layout, layer = image_of(make, make.tar_of({f"file{number}": os.urandom(20_000) for number in range(50)}))
    data = layout.blobs[layer]
    ingest = root / "content/ingest"
    ingest.mkdir(parents=True)
    (ingest / layer.removeprefix("sha256:")).write_bytes(gzip.compress(make.tar_of({"other": os.urandom(400_000)})))
    server = liar(layout)

    async def work(house) -> None:
        await house.pull(f"{server.address}/x", "1")
        asked = [ranges for path, ranges in server.seen if path.endswith(layer)]
        assert len(asked) == 2
        assert asked[0].startswith("bytes=")
        assert asked[1] == ""
        assert not (await house.images.verify(lambda line: None)).damaged
        assert house.images.get(f"{server.address}/x:1").size == 1_000_000

    assert len(data) > 500_000
    with_house(work)


def test_a_wrong_layer_among_right_ones(with_house, make, liar) -> None:
    """They are unpacked side by side; nothing stays, whichever was first."""
    layout = make.Layout()
    layers = [make.tar_of({f"file{number}": os.urandom(30_000)}) for number in range(6)]
    layout.tag(layout.image(layers), "1")
    manifest = json.loads(layout.blobs[layout.index[0]["digest"]])
    wrong = manifest["layers"][2]["digest"]
    layout.blobs[wrong] = layout.blobs[wrong][:-8] + bytes(8)
    server = liar(layout)

    async def work(house) -> None:
        with pytest.raises(InvalidArgument, match=r"verification failed|invalid compressed data"):
            await house.pull(f"{server.address}/x", "1")
        assert not house.blobs()
        assert not await house.layers()

    with_house(work)


def test_a_wrong_layer_takes_no_right_one_with_it(with_house, make, liar) -> None:
    """An image says that it has a layer which another pull has just made: that one stays, whatever was sent for it."""
    layout = make.Layout()
    base, top = make.tar_of({"base": b"right"}), make.tar_of({"top": os.urandom(200_000)})
    layout.tag(layout.image([base, top]), "1")
    wrong = make.Layout()
    claim = {"type": "layers", "diff_ids": [make.digest(base)]}
    wrong.tag(wrong.image([make.tar_of({"base": b"wrong"})], rootfs=claim), "1")
    quick, slow = (layer["digest"] for layer in json.loads(layout.blobs[layout.index[0]["digest"]])["layers"])
    server, other = liar(layout), liar(wrong)
    release = threading.Event()

    def tamper(handler, path) -> bool:
        if path.endswith(slow):
            release.wait(20)
        return False

    server.tamper = tamper

    async def work(house) -> None:
        said: list[dict[str, Any]] = []
        pull = house.images.pull(f"{server.address}/x", "1", platform="", auth=None, progress=said.append)
        right = asyncio.create_task(pull)
        # Looked at again and again, since progress comes by a callback.
        while ("Pull complete", quick[7:19]) not in {(line["status"], line.get("id")) for line in said}:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        with pytest.raises(InvalidArgument, match="configuration says"):
            await house.pull(f"{other.address}/x", "1")
        release.set()
        await right
        assert make.digest(base) in await house.layers()

    with_house(work)


def test_what_follows_an_archive_hides_no_wrong_layer(with_house, make, liar) -> None:
    """A driver that has read the archive's end may have made a layer of it before all that follows is verified."""
    layout = make.Layout()
    right = make.tar_of({"file": b"right"})
    wrong = make.tar_of({"file": b"wrong"}) + bytes(2 << 20)
    layout.tag(layout.image([wrong], rootfs={"type": "layers", "diff_ids": [make.digest(right)]}), "1")
    server = liar(layout)

    async def work(house) -> None:
        with pytest.raises(InvalidArgument, match="configuration says"):
            await house.pull(f"{server.address}/x", "1")
        assert not await house.layers()

    with_house(work)
