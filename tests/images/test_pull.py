from __future__ import annotations

import asyncio
import json

import pytest
import zstandard

from wharfie.spi.errors import InvalidArgument, NotFound, WharfieError


def two_layers(make, **options):
    layout = make.Layout()
    lower, upper = make.tar_of({"bin/a": b"a" * 1000}), make.tar_of({"b": b"b"})
    layout.tag(layout.image([lower, upper], **options), "1")
    return layout, lower, upper


def test_by_tag(with_house, registry, make, tmp_path) -> None:
    layout, lower, upper = two_layers(make)
    registry.push(layout.write(tmp_path / "oci"), "1", "team/by-tag:1")
    name = f"{registry.address}/team/by-tag"

    async def work(house) -> None:
        said = await house.pull(name, "1")
        image = house.images.get(f"{name}:1")
        assert image.layers == [make.digest(lower), make.digest(upper)]
        assert await house.layers() == set(image.chain_ids)
        assert image.size == 1001
        assert said[0] == {"status": "Pulling from team/by-tag", "id": "1"}
        for blob in (layer.blob[7:19] for layer in image.stack):
            steps = list(dict.fromkeys(line["status"] for line in said if line.get("id") == blob))
            assert steps[0] == "Pulling fs layer"
            assert steps[-5:] == ["Downloading", "Verifying Checksum", "Download complete", "Extracting", "Pull complete"]
        digest = image.repo_digests[0].partition("@")[2]
        assert said[-2:] == [
            {"status": f"Digest: {digest}"},
            {"status": f"Status: Downloaded newer image for {name}:1"},
        ]
        assert house.seen == [("pull", f"{name}:1", {"a": "b", "name": name})]
        assert house.unfinished() == []

        again = await house.pull(name, "1")
        assert [line["status"] for line in again] == [
            "Pulling from team/by-tag",
            f"Digest: {digest}",
            f"Status: Image is up to date for {name}:1",
        ]

    with_house(work)


def test_by_digest(with_house, registry, make, tmp_path) -> None:
    layout, *_ = two_layers(make)
    registry.push(layout.write(tmp_path / "oci"), "1", "by-digest:1")
    name = f"{registry.address}/by-digest"

    async def work(house) -> None:
        digest = layout.index[0]["digest"]
        said = await house.pull(name, digest)
        assert said[0] == {"status": "Pulling from by-digest", "id": digest}
        assert said[-1] == {"status": f"Status: Downloaded newer image for {name}@{digest}"}
        image = house.images.get(f"{name}@{digest}")
        assert (image.repo_tags, image.repo_digests) == ([], [f"{name}@{digest}"])
        with pytest.raises(NotFound, match="manifest unknown"):
            await house.pull(name, make.digest(b"other"))

    with_house(work)


def test_all_tags(with_house, registry, make, tmp_path) -> None:
    layout, *_ = two_layers(make)
    folder = layout.write(tmp_path / "oci")
    for tag in ("1", "2"):
        registry.push(folder, "1", f"all-tags:{tag}")

    async def work(house) -> None:
        await house.pull(f"{registry.address}/all-tags", "")
        (image,) = house.images.list(all=False, filters={})
        assert image.repo_tags == [f"{registry.address}/all-tags:1", f"{registry.address}/all-tags:2"]

    with_house(work)


@pytest.mark.parametrize(
    ("compress", "kind"), [(bytes, ""), (zstandard.ZstdCompressor().compress, "+zstd")], ids=["plain", "zstd"]
)
def test_other_compressions(with_house, registry, make, tmp_path, compress, kind) -> None:
    layout, *_ = two_layers(make, compress=compress, kind=kind)
    registry.push(layout.write(tmp_path / "oci"), "1", f"compressed:v{kind[1:]}")

    async def work(house) -> None:
        await house.pull(f"{registry.address}/compressed", f"v{kind[1:]}")
        assert len(await house.layers()) == 2

    with_house(work)


def test_the_platform_is_chosen_from_an_index(with_house, registry, make, tmp_path) -> None:
    layout = make.Layout()
    members = []
    for architecture, variant in (("arm64", "v8"), ("386", ""), ("amd64", "")):
        image = layout.image([make.tar_of({architecture: b"x"})], architecture=architecture)
        members.append((image, {"os": "linux", "architecture": architecture, **({"variant": variant} if variant else {})}))
    layout.tag(layout.index_of(*members), "many")
    registry.push(layout.write(tmp_path / "oci"), "many", "many:1")
    name = f"{registry.address}/many"

    async def work(house) -> None:
        await house.pull(name, "1", platform="linux/amd64")
        assert house.images.get(f"{name}:1").architecture == "amd64"
        digest = house.images.get(f"{name}:1").repo_digests[0].partition("@")[2]
        assert digest == layout.index[0]["digest"]
        await house.pull(name, "1", platform="linux/arm64")
        assert house.images.get(f"{name}:1").architecture == "arm64"
        message = "no matching manifest for linux/s390x in the manifest list entries: no match for platform"
        with pytest.raises(NotFound, match=message):
            await house.pull(name, "1", platform="linux/s390x")
        with pytest.raises(InvalidArgument):
            await house.pull(name, "1", platform="a/b/c/d")

    with_house(work)


def test_another_platform_than_asked_for_is_a_warning(with_house, registry, make, tmp_path) -> None:
    layout, *_ = two_layers(make, architecture="s390x")
    registry.push(layout.write(tmp_path / "oci"), "1", "mainframe:1")

    async def work(house) -> None:
        said = await house.pull(f"{registry.address}/mainframe", "1", platform="linux/amd64")
        assert said[-1]["status"].startswith("WARNING: image with reference")
        assert "(linux/s390x) does not match the specified platform (linux/amd64)" in said[-1]["status"]

    with_house(work)


def test_layers_are_shared_by_content(with_house, registry, make, tmp_path) -> None:
    base, top = make.tar_of({"base": b"b" * 100}), make.tar_of({"top": b"t"})
    layout = make.Layout()
    layout.tag(layout.image([base]), "base")
    layout.tag(layout.image([base, top], compress=bytes, kind=""), "top")
    folder = layout.write(tmp_path / "oci")
    for tag in ("base", "top"):
        registry.push(folder, tag, f"shared:{tag}")
    name = f"{registry.address}/shared"

    async def work(house) -> None:
        await house.pull(name, "base")
        said = await house.pull(name, "top")
        assert [line["status"] for line in said if line.get("status") == "Already exists"] == ["Already exists"]
        image = house.images.get(f"{name}:top")
        assert image.stack[0].blob == house.images.get(f"{name}:base").stack[0].blob
        assert house.images.shared_sizes([image]) == {image.id: 100}
        assert house.images.layers_size() == 101
        await house.images.remove(f"{name}:base", force=False, prune=True)
        assert await house.layers() == set(image.chain_ids)
        assert b"".join([piece async for piece in await house.images.save([f"{name}:top"])])
        await house.images.remove(f"{name}:top", force=False, prune=True)
        assert not await house.layers()
        assert not house.blobs()

    with_house(work)


def test_two_pulls_at_once(with_house, registry, make, tmp_path) -> None:
    layout, *_ = two_layers(make)
    registry.push(layout.write(tmp_path / "oci"), "1", "at-once:1")
    name = f"{registry.address}/at-once"

    async def work(house) -> None:
        both = await asyncio.gather(*(house.pull(name, "1") for _ in range(8)))
        assert all(said[-1]["status"].startswith("Status: ") for said in both)
        assert len(house.blobs()) == 4

    with_house(work)


def test_what_is_not_there(with_house, registry) -> None:
    async def work(house) -> None:
        name = f"{registry.address}/nothing"
        with pytest.raises(NotFound) as caught:
            await house.pull(name, "1")
        assert caught.value.message == f"manifest for {name}:1 not found: manifest unknown: manifest unknown"
        for bad in ("BAD::ref", "a b", "-", "x@sha256:12"):
            with pytest.raises(InvalidArgument):
                await house.pull(bad, "1")

    with_house(work)


def test_a_registry_that_is_down(with_house, make) -> None:
    async def work(house) -> None:
        with pytest.raises(WharfieError) as caught:
            await house.pull("127.0.0.1:9/x", "1")
        assert type(caught.value) is WharfieError
        assert caught.value.message == 'Get "http://127.0.0.1:9/v2/": dial tcp 127.0.0.1:9: connect: connection refused'
        with pytest.raises(WharfieError, match=r'Get "https://registry.invalid/v2/": dial tcp: lookup registry.invalid'):
            await house.images.login({"serveraddress": "https://registry.invalid/v2/", "username": "u", "password": "p"})

    with_house(work)


def test_records_survive_and_garbage_does_not(with_house, registry, make, tmp_path, root) -> None:
    layout, *_ = two_layers(make)
    registry.push(layout.write(tmp_path / "oci"), "1", "durable:1")
    name = f"{registry.address}/durable"

    async def first(house) -> tuple[dict, set[str]]:
        await house.pull(name, "1")
        return house.images.get(f"{name}:1").dump(), house.blobs()

    async def second(house) -> tuple[dict, set[str]]:
        assert [path.name for path in house.unfinished()] == ["0" * 64]  # kept for a pull that may want it
        await house.images.prune({})
        assert house.unfinished() == []
        return house.images.get(f"{name}:1").dump(), house.blobs()

    before = with_house(first)
    (root / "content/blobs/sha256" / ("0" * 64)).write_bytes(b"left by a kill")
    (root / "content/ingest/spool-1").write_bytes(b"left by a kill")
    assert with_house(second) == before


def test_an_image_that_lost_a_blob_is_put_aside_and_pulled_again(with_house, registry, make, tmp_path, root) -> None:
    layout, *_ = two_layers(make)
    registry.push(layout.write(tmp_path / "oci"), "1", "damaged:1")
    name = f"{registry.address}/damaged"

    async def first(house) -> str:
        await house.pull(name, "1")
        return house.images.get(f"{name}:1").stack[0].blob

    async def second(house) -> None:
        with pytest.raises(NotFound):
            house.images.get(f"{name}:1")
        assert len(house.blobs()) == 3
        said = await house.pull(name, "1")
        assert said[-1]["status"].startswith("Status: Downloaded newer image")
        assert len([line for line in said if line["status"] == "Verifying Checksum"]) == 1
        assert house.images.get(f"{name}:1").repo_tags == [f"{name}:1"]

    blob = with_house(first)
    (root / "content/blobs/sha256" / blob[7:]).unlink()
    with_house(second)
    with_house(lambda house: asyncio.sleep(0, house.images.get(f"{name}:1")))


def test_a_foreign_layer_comes_from_where_the_manifest_says(with_house, make, liar) -> None:
    """And is not pushed anywhere: who has the image gets it from there too."""
    layout, elsewhere = make.Layout(), make.Layout()
    layout.tag(layout.image([make.tar_of({"a": b"1"}), make.tar_of({"b": b"2"})]), "1")
    document = json.loads(layout.blobs[layout.index[0]["digest"]])
    foreign = document["layers"][1]
    elsewhere.blobs[foreign["digest"]] = layout.blobs.pop(foreign["digest"])
    server, other = liar(layout), liar(elsewhere)
    foreign["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    foreign["urls"] = ["http://192.0.2.1/not-without-tls", f"http://{other.address}/some/{foreign['digest']}"]
    layout.index[0] = layout.blob(json.dumps(document).encode(), document["mediaType"])

    async def work(house) -> None:
        await house.pull(f"{server.address}/x", "1")
        assert len(house.images.get(f"{server.address}/x:1").layers) == 2
        assert [path for path, _ in other.seen] == [f"/some/{foreign['digest']}"]

    with_house(work)
