"""Documents and archives changed at random: each is taken or refused in words, and no fault of ours comes to light.

WHARFIE_EXAMPLES: how many of each; 25, to be quick, unless it says more.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import zstandard

from wharfie.engine.images import documents
from wharfie.spi.errors import DriverError, WharfieError

EXAMPLES = int(os.environ.get("WHARFIE_EXAMPLES", "25"))
SEED = int(os.environ.get("WHARFIE_SEED", "5"))

ODD: list[Any] = [
    None, True, -1, 0, 1.5, 1 << 70, "", "\0", "\ud800", "sha256:", "sha256:" + "0" * 64, "../../etc/passwd", [], {}, [[]],
    [None], {"a": None}, "a" * 5000, "application/vnd.oci.image.index.v1+json", float("nan"), ["sha256:" + "A" * 64],
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to each value in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [deeper for key, inner in items for deeper in places(inner, (*path, key))]


def changed(document: Any, source: random.Random) -> Any:
    """With one to three values replaced, removed or doubled."""
    document = copy.deepcopy(document)
    for _ in range(source.randint(1, 3)):
        found = places(document)
        if not found:
            break
        *way, last = source.choice(found)
        holder = document
        for key in way:
            holder = holder[key]
        match source.randrange(4):
            case 0 if isinstance(holder, dict):
                del holder[last]
            case 1 if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[last]))
            case 2:
                holder[last] = copy.deepcopy(document)
            case _:
                holder[last] = copy.deepcopy(source.choice(ODD))
    return document


def broken(data: bytes, source: random.Random) -> bytes:
    """With bytes flipped, cut, doubled or overwritten."""
    out = bytearray(data)
    for _ in range(source.randint(1, 4)):
        at = source.randrange(max(len(out), 1))
        match source.randrange(5):
            case 0:
                out[at : at + 1] = bytes([source.randrange(256)])
            case 1:
                del out[at:]
            case 2:
                out[at:at] = out[at : at + 512]
            case 3:
                out[at : at + 12] = source.choice([b"\xff" * 12, b"7" * 12, b"\0" * 12, b"-1         \0"])
            case _:
                del out[at : at + source.choice([1, 512])]
    return bytes(out)


def text(document: Any) -> bytes:
    return json.dumps(document).encode("utf-8", "surrogatepass")


def parts(make: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    layout = make.Layout()
    layers = [make.tar_of({"bin/a": b"a" * 700, "b": b"b"}), make.tar_of({"bin/.wh.a": b"", "c": b"c" * 600})]
    layout.tag(layout.image(layers), "1")
    manifest = json.loads(layout.blobs[layout.index[0]["digest"]])
    return layout, manifest, json.loads(layout.blobs[manifest["config"]["digest"]])


def test_documents_by_themselves(make) -> None:
    """The readers raise errors of the taxonomy only, whatever they get."""
    source = random.Random(SEED)
    _, manifest, config = parts(make)
    index = {"schemaVersion": 2, "manifests": [{**manifest["config"], "platform": {"os": "linux", "architecture": "a"}}]}
    for _ in range(EXAMPLES * 40):
        for document in (manifest, config, index):
            data = text(changed(document, source))
            if source.random() < 0.3:
                data = broken(data, source)
            try:
                found = documents.read_object(data, "it")
                documents.is_index(found, "")
                documents.read_manifest(found)
            except WharfieError:
                pass
            with contextlib.suppress(WharfieError):
                documents.read_config(data)
            with contextlib.suppress(WharfieError):
                documents.read_index(documents.read_object(data, "it"))


@pytest.mark.root
def test_images_at_a_registry(with_house, make, liar, caplog) -> None:
    source = random.Random(SEED)

    async def work(house) -> None:
        for number in range(EXAMPLES):
            layout, manifest, config = parts(make)
            match number % 3:
                case 0:
                    data = text(changed(config, source))
                    manifest["config"] = {**layout.blob(data, manifest["config"]["mediaType"])}
                case 1:
                    manifest = changed(manifest, source)
                case _:
                    layer = broken(make.tar_of({"a": b"a" * 600, "l/b": b""}), source)
                    packed = source.choice([bytes, gzip.compress, zstandard.ZstdCompressor().compress])(layer)
                    if source.random() < 0.3:
                        packed = broken(packed, source)
                    config["rootfs"]["diff_ids"] = [make.digest(layer)]
                    manifest["layers"] = [layout.blob(packed, manifest["layers"][0]["mediaType"])]
                    manifest["config"] = layout.blob(text(config), manifest["config"]["mediaType"])
            layout.index[0] = layout.blob(text(manifest), "application/vnd.oci.image.manifest.v1+json")
            server = liar(layout)
            server.tamper = typed(server, layout)
            try:
                await house.pull(f"{server.address}/x", "1")
            except WharfieError as error:
                assert not isinstance(error, DriverError), error
            for name in [
                name for image in house.images.list(all=True, filters={}) for name in (*image.repo_tags, image.id)
            ]:
                try:
                    await house.images.remove(name, force=True, prune=True)
                except WharfieError:
                    continue  # it went with its name
            assert not await house.layers()
            await house.images.prune({})

    with_house(work, attempts=1)
    assert not [record for record in caplog.records if record.exc_info], caplog.text


def typed(server: Any, layout: Any) -> Any:
    """Manifests that are no documents any more have no media type of their own."""

    def tamper(handler: Any, path: str) -> bool:
        if "/manifests/" not in path:
            return False
        data = layout.blobs[layout.index[0]["digest"]]
        server.reply(handler, 200, data, Content_Type="application/vnd.oci.image.manifest.v1+json")
        return True

    return tamper


@pytest.mark.root
def test_archives_that_are_loaded(with_house, make, root: Path, caplog) -> None:
    source = random.Random(SEED)

    async def pieces(data: bytes):
        yield data

    async def work(house) -> None:
        for number in range(EXAMPLES):
            layers = [make.tar_of({"a": b"a" * 600}), make.tar_of({"b": b"b"})]
            config = {
                "architecture": "amd64",
                "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": [make.digest(layer) for layer in layers]},
            }
            listed = [{"Config": "c.json", "RepoTags": ["fuzz:1"], "Layers": ["0/layer.tar", "1/layer.tar"]}]
            if number % 3 == 0:
                config = changed(config, source)
            elif number % 3 == 1:
                listed = changed(listed, source)
            files = {
                "0/layer.tar": layers[0],
                "1/layer.tar": layers[1],
                "c.json": text(config),
                "manifest.json": text(listed),
            }
            data = make.tar_of(files)
            if number % 3 == 2:
                data = broken(data, source)
            if source.random() < 0.3:
                data = gzip.compress(data)
            try:
                await house.images.load(pieces(data), quiet=True, progress=lambda line: None)
            except WharfieError as error:
                assert not isinstance(error, DriverError), error
            for image in house.images.list(all=True, filters={}):
                await house.images.remove(image.id, force=True, prune=True)
            assert not await house.layers()
            assert not house.blobs()
            assert not house.unfinished()

    with_house(work)
    assert not [record for record in caplog.records if record.exc_info], caplog.text
