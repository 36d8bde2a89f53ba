"""Push: Debian's registry is the peer, skopeo and a second store read back what was sent."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess

import pytest

from wharfie.spi.errors import InvalidArgument, NotFound, WharfieError


async def push(house, name: str, tag: str = "1"):
    said = []
    await house.images.push(name, tag, auth=None, progress=lambda line: said.append(dict(line)))
    return said


async def pieces(data: bytes):
    yield data


def statuses(said, id: str) -> list[str]:
    """The steps of one line, each once."""
    steps = [line["status"] for line in said if line.get("id") == id]
    return [step for at, step in enumerate(steps) if at == 0 or steps[at - 1] != step]


def looked_at(registry, name: str) -> dict:
    words = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{registry.address}/{name}"]
    return json.loads(subprocess.run(words, check=True, capture_output=True).stdout)


def short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


async def imported(house, tar: bytes, name: str) -> str:
    options = {"message": "", "changes": [], "platform": "", "progress": lambda line: None}
    return await house.images.import_(pieces(tar), repository=name, tag="1", **options)


def test_a_pulled_image_goes_out_as_it_came(with_house, make, registry, tmp_path) -> None:
    layout = make.Layout()
    layers = [make.tar_of({name: os.urandom(50_000)}) for name in ("a", "b", "c")]
    descriptor = layout.image(layers)
    layout.tag(descriptor, "1")
    registry.push(layout.write(tmp_path / "layout"), "1", "asitcame/from:1")
    here = f"{registry.address}/asitcame/from"

    async def work(house) -> None:
        await house.pull(here, "1")
        again = await push(house, here)
        assert again[0] == {"status": f"The push refers to repository [{here}]"}
        for layer in layers:
            assert statuses(again, short(make.digest(layer))) == ["Preparing", "Layer already exists"]
        # The topmost layer is named first, as in docker push.
        order = [line["id"] for line in again if line.get("status") == "Preparing"]
        assert order == [short(make.digest(layer)) for layer in reversed(layers)]
        assert again[-2] == {"status": f"1: digest: {descriptor['digest']} size: {descriptor['size']}"}
        aux = {"Tag": "1", "Digest": descriptor["digest"], "Size": descriptor["size"]}
        assert again[-1] == {"progressDetail": {}, "aux": aux}

        other = f"{registry.address}/asitcame/to"
        await house.images.tag(f"{here}:1", other, "1")
        said = await push(house, other)
        for layer in layers:
            assert statuses(said, short(make.digest(layer))) == ["Preparing", "Mounted from asitcame/from"]
        assert looked_at(registry, "asitcame/to:1")["layers"] == json.loads(layout.blobs[descriptor["digest"]])["layers"]
        assert f"{other}@{descriptor['digest']}" in house.images.get(f"{other}:1").repo_digests
        assert ("push", f"{other}:1") in [(action, actor) for action, actor, _ in house.seen]

    with_house(work)


def test_an_uncompressed_layer_is_compressed_once(with_house, make, registry, monkeypatch) -> None:
    tar = make.tar_of({"a": b"text " * 100_000, "b": os.urandom(50_000)})
    name = f"{registry.address}/once"
    layer = short(make.digest(tar))

    async def first(house) -> str:
        image = await imported(house, tar, name)
        said = await push(house, name)
        assert statuses(said, layer) == ["Preparing", "Pushing", "Pushed"]
        sizes = [line["progressDetail"] for line in said if line.get("status") == "Pushing" and line.get("id")]
        assert sizes[-1]["current"] == sizes[-1]["total"] < len(tar)
        assert not house.unfinished()
        return image

    image = with_house(first)
    manifest = looked_at(registry, "once:1")
    assert manifest["config"]["digest"] == image
    assert manifest["layers"][0]["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"

    async def second(house) -> None:
        """After a restart: what the layer became is still known."""
        monkeypatch.setattr("wharfie.engine.images.push.compress", None)
        assert statuses(await push(house, name), layer) == ["Preparing", "Layer already exists"]

    with_house(second)
    assert looked_at(registry, "once:1") == manifest

    async def third(house) -> None:
        """To another repository it is mounted; the same bytes again."""
        monkeypatch.undo()
        await house.images.tag(f"{name}:1", f"{registry.address}/elsewhere", "1")
        said = await push(house, f"{registry.address}/elsewhere")
        assert statuses(said, layer) == ["Preparing", "Mounted from once"]
        assert looked_at(registry, "elsewhere:1") == manifest
        await house.images.remove(image, force=True, prune=True)
        assert not house.images._catalog.compressed  # no answer shows it
        await house.pull(name, "1")
        assert house.images.get(f"{name}:1").id == image

    with_house(third)


def test_what_was_pushed_is_what_was_there(with_house, make, registry) -> None:
    tar = make.tar_of({"a": b"text " * 100_000})
    name = f"{registry.address}/same"

    async def work(house) -> None:
        await imported(house, tar, name)
        await push(house, name)

    with_house(work)
    blob = looked_at(registry, "same:1")["layers"][0]["digest"]
    words = ["curl", "-sf", f"http://{registry.address}/v2/same/blobs/{blob}"]
    assert gzip.decompress(subprocess.run(words, check=True, capture_output=True).stdout) == tar


def test_all_tags(with_house, make, registry) -> None:
    name = f"{registry.address}/tags"

    async def work(house) -> None:
        await imported(house, make.tar_of({"a": b"1"}), name)
        await house.images.tag(f"{name}:1", name, "2")
        said = await push(house, name, "")
        ends = [line["status"].partition(":")[0] for line in said if ": digest: " in line.get("status", "")]
        assert ends == ["1", "2"]

    with_house(work)
    assert looked_at(registry, "tags:1") == looked_at(registry, "tags:2")


def test_pushes_at_the_same_time_send_a_layer_once(with_house, make, registry) -> None:
    tar = make.tar_of({"a": os.urandom(300_000)})
    name = f"{registry.address}/together"

    async def work(house) -> None:
        await imported(house, tar, name)
        for tag in ("2", "3"):
            await house.images.tag(f"{name}:1", name, tag)
        told = await asyncio.gather(*(push(house, name, tag) for tag in ("1", "2", "3")))
        assert all(": digest: " in said[-2]["status"] for said in told)

    with_house(work)


def test_what_cannot_be_pushed(with_house, make) -> None:
    async def work(house) -> None:
        said = []
        with pytest.raises(NotFound) as caught:
            await house.images.push("golden/nothing", "1", auth=None, progress=lambda line: said.append(dict(line)))
        assert caught.value.message == "An image does not exist locally with the tag: golden/nothing"
        assert said == [{"status": "The push refers to repository [docker.io/golden/nothing]"}]
        with pytest.raises(InvalidArgument, match="cannot push a digest reference"):
            await house.images.push("x@sha256:" + "a" * 64, "", auth=None, progress=said.append)

        await imported(house, make.tar_of({"a": b"1"}), "registry.invalid/golden/pushme")
        said.clear()
        with pytest.raises(WharfieError) as caught:
            await house.images.push(
                "registry.invalid/golden/pushme", "1", auth=None, progress=lambda line: said.append(dict(line))
            )
        assert caught.value.message.startswith('Get "https://registry.invalid/v2/": dial tcp: lookup registry.invalid')
        assert said == [{"status": "The push refers to repository [registry.invalid/golden/pushme]"}]

    with_house(work)
