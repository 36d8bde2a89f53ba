"""The content store looked at and mended: a flipped byte is found, said, and fetched again."""

from __future__ import annotations

import pytest


def flip(path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture
def image(make, liar):
    """An image at a scripted registry."""
    layout = make.Layout()
    layout.tag(layout.image([make.tar_of({"a": b"1" * 5000}), make.tar_of({"b": b"2" * 5000})]), "1")
    return layout, liar(layout)


def test_what_is_there(with_house, image) -> None:
    layout, server = image

    async def work(house) -> None:
        await house.pull(f"{server.address}/x", "1")
        found = await house.images.blobs()
        assert {blob.digest: blob.size for blob in found} == {key: len(data) for key, data in layout.blobs.items()}
        assert sorted(blob.kind for blob in found) == ["config", "layer", "layer", "manifest"]
        said = []
        findings = await house.images.verify(said.append)
        assert (findings.blobs, findings.damaged, said) == (4, [], [])

    with_house(work)


@pytest.mark.parametrize("kind", ["config", "layer", "manifest"])
@pytest.mark.parametrize("fault", ["flipped", "cut", "gone"])
def test_damage_is_found_and_mended(with_house, image, root, kind, fault) -> None:
    layout, server = image

    async def work(house) -> None:
        await house.pull(f"{server.address}/x", "1")
        blob = next(blob for blob in await house.images.blobs() if blob.kind == kind)
        path = root / "content/blobs/sha256" / blob.digest.removeprefix("sha256:")
        if fault == "flipped":
            flip(path)
        elif fault == "cut":
            path.write_bytes(path.read_bytes()[:-1])
        else:
            path.unlink()
        said = []
        findings = await house.images.verify(said.append)
        assert [(each.digest, each.kind) for each, _ in findings.damaged] == [(blob.digest, kind)]
        (line,) = said
        assert line["status"].startswith(f"damaged: {kind} of {server.address}/x:1: it")
        assert line["id"] == blob.digest[7:19]

        findings = await house.images.repair(None, said.append)
        assert findings.repaired == {blob.digest}
        assert path.read_bytes() == layout.blobs[blob.digest]
        assert not (await house.images.verify(said.append)).damaged

    with_house(work)


def test_what_cannot_be_mended_comes_back_by_a_pull(with_house, image, root) -> None:
    _, server = image

    async def work(house) -> None:
        name = f"{server.address}/x"
        await house.pull(name, "1")
        blobs = [blob for blob in await house.images.blobs() if blob.kind == "layer"]
        paths = [root / "content/blobs/sha256" / blob.digest.removeprefix("sha256:") for blob in blobs]
        flip(paths[0])
        server.tamper = lambda handler, path: not server.reply(handler, 404)
        said = []
        findings = await house.images.repair(None, lambda line: said.append(line["status"]))
        assert not findings.repaired
        assert said[-1] == f"not repaired: pull or load {name}:1 again"
        assert not paths[0].exists()

        server.tamper = lambda handler, path: False
        server.seen.clear()
        await house.pull(name, "1")
        assert [path for path, _ in server.seen if "/blobs/" in path] == [f"/v2/x/blobs/{blobs[0].digest}"]
        assert not (await house.images.verify(said.append)).damaged

    with_house(work)
