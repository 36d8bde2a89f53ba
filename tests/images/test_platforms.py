"""One name, images for several platforms: pulled, pushed whole, saved, loaded, looked at and removed one by one."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from wharfie.api.views.image import target_view
from wharfie.engine.images.catalog import blobs_of
from wharfie.engine.model.config import Config
from wharfie.engine.model.container import Container, State
from wharfie.engine.model.host import HostConfig
from wharfie.spi.errors import Conflict, InvalidArgument, NotFound

NAMES = ("amd64", "arm64", "s390x")
QUIET = {"auth": None, "progress": lambda line: None}


def wanted(architecture: str) -> str:
    return json.dumps({"os": "linux", "architecture": architecture})


@pytest.fixture
def several(make):
    """A layout with an index of three images; gives it, the index and its members."""
    layout = make.Layout()
    members = {}
    for name in NAMES:
        image = layout.image([make.tar_of({"for": name.encode()}), make.tar_of({"all": b"same"})], architecture=name)
        members[name] = image
    index = layout.index_of(*((members[name], {"os": "linux", "architecture": name}) for name in NAMES))
    return layout, index, members


@pytest.fixture
def pushed(several, registry, request):
    """The same at the registry, in a repository of the test's own."""
    layout, index, members = several
    repository = request.node.name.replace("_", "-")
    for name in NAMES:
        registry.put(layout.blobs, members[name], repository, members[name]["digest"])
    registry.put(layout.blobs, index, repository, "1")
    return f"{registry.address}/{repository}"


async def pieces(data):
    yield data


async def saved(house, *names: str, platform: str = "") -> bytes:
    return b"".join([piece async for piece in await house.images.save(names, platform)])


def files(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isfile()}


async def pull_all(house, name: str) -> None:
    for architecture in ("arm64", "s390x", "amd64"):
        await house.pull(name, "1", platform=f"linux/{architecture}")


def architectures(house, name: str) -> set[str]:
    return {image.architecture for image in house.images.list(all=True, filters={"reference": [name]})}


def test_pulls_for_other_platforms_share_the_name(with_house, pushed, several) -> None:
    name, index = f"{pushed}:1", several[1]

    async def work(house) -> None:
        await pull_all(house, pushed)
        assert architectures(house, name) == set(NAMES)
        assert house.images.get(name).architecture == "amd64"  # what came last
        for architecture in NAMES:
            found = house.images.get(name, wanted(architecture))
            assert found.architecture == architecture
            assert found.repo_tags == [name] and found.repo_digests == [f"{pushed}@{index['digest']}"]
            assert len(house.images.history(name, wanted(architecture))) == 2
        with pytest.raises(
            NotFound, match=r"its platform \(linux/amd64\) does not match the specified platform \(linux/386\)"
        ):
            house.images.get(name, wanted("386"))
        with pytest.raises(InvalidArgument, match="both OS and Architecture must be provided"):
            house.images.get(name, "{}")
        with pytest.raises(InvalidArgument, match="optional platform fields provided"):
            house.images.get(name, '{"variant": "v8"}')
        with pytest.raises(InvalidArgument, match="failed to parse platform"):
            house.images.get(name, "{")
        listed = json.loads((house.root / "content/index.json").read_text())["manifests"]
        assert index["digest"] in [entry["digest"] for entry in listed if "annotations" in entry]
        await house.images.tag(name, "copy", "2")
        assert {blob.kind for blob in await house.images.blobs()} == {"config", "layer", "manifest", "index"}
        assert not (await house.images.verify(lambda line: None)).damaged
        (house.root / "content/blobs/sha256" / index["digest"].removeprefix("sha256:")).unlink()
        found = await house.images.verify(lambda line: None)
        assert [(blob.kind, why) for blob, why in found.damaged] == [("index", "it is missing")]
        assert (await house.images.repair(None, lambda line: None)).repaired == {index["digest"]}
        (house.root / "content/blobs/sha256" / index["digest"].removeprefix("sha256:")).unlink()
        await house.pull(pushed, "1")
        assert not (await house.images.verify(lambda line: None)).damaged

    async def later(house) -> None:
        assert architectures(house, name) == architectures(house, "copy:2") == set(NAMES)
        await house.images.remove(name, force=False, prune=True)
        assert architectures(house, "copy:2") == set(NAMES)
        said = await house.images.remove("copy:2", force=False, prune=True)
        assert sum("Deleted" in row for row in said) == 3 + 6
        assert not house.blobs()
        assert not await house.layers()

    with_house(work)
    with_house(later)


def test_an_index_is_pushed_whole_as_it_came(with_house, registry, pushed, several) -> None:
    index = several[1]
    other = f"{pushed}-copy"

    async def work(house) -> None:
        await pull_all(house, pushed)
        await house.images.tag(f"{pushed}:1", other, "2")
        said = []
        await house.images.push(other, "2", auth=None, progress=said.append)
        assert said[-1]["aux"] == {"Tag": "2", "Digest": index["digest"], "Size": index["size"]}
        found = await house.images.distribution(f"{other}:2", None)
        assert found.descriptor.digest == index["digest"]
        assert {each.architecture for each in found.platforms} == set(NAMES)
        await house.images.tag(f"{pushed}:1", other, "one")
        await house.images.push(other, "one", platform=wanted("s390x"), **QUIET)
        one = await house.images.distribution(f"{other}:one", None)
        assert [each.architecture for each in one.platforms] == ["s390x"]
        with pytest.raises(NotFound, match="does not match the specified platform"):
            await house.images.push(other, "one", platform=wanted("386"), **QUIET)

    with_house(work)


def test_an_index_of_which_something_is_missing(with_house, registry, pushed, several) -> None:
    index = several[1]

    async def work(house) -> None:
        await house.pull(pushed, "1")
        await house.images.tag(f"{pushed}:1", f"{pushed}-new", "1")
        said = []
        await house.images.push(f"{pushed}-new", "1", auth=None, progress=said.append)
        notes = [line["aux"] for line in said if "manifestPushedInsteadOfIndex" in line.get("aux", {})]
        assert notes[0]["originalIndex"]["digest"] == index["digest"]
        assert said[-1]["aux"]["Digest"] == notes[0]["selectedManifest"]["digest"]
        await house.pull(pushed, "1", platform="linux/arm64")
        await house.images.tag(f"{pushed}:1", f"{pushed}-more", "1")
        with pytest.raises(NotFound, match="not all of them are available locally"):
            await house.images.push(f"{pushed}-more", "1", **QUIET)
        await house.images.push(pushed, "1", **QUIET)  # there all of it is

    with_house(work)


def test_saved_and_loaded_whole_and_in_part(with_house, make, several, tmp_path) -> None:
    layout, index, _ = several
    layout.tag(index, "docker.io/library/several:1")
    folder = layout.write(tmp_path / "layout")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(folder, arcname=".")

    async def work(house) -> None:
        said = []
        await house.images.load(pieces(out.getvalue()), quiet=True, progress=said.append)
        assert [line["stream"] for line in said] == ["Loaded image: several:1\n"]
        assert architectures(house, "several:1") == set(NAMES)
        whole = await saved(house, "several:1")
        assert index["digest"] == json.loads(files(whole)["index.json"])["manifests"][0]["digest"]
        assert len(json.loads(files(whole)["manifest.json"])) == 1
        part = await saved(house, "several:1", platform=wanted("s390x"))
        await house.images.remove("several:1", force=False, prune=True)
        assert not house.blobs()
        await house.images.load(pieces(whole), quiet=True, progress=lambda line: None)
        assert architectures(house, "several:1") == set(NAMES)
        assert await saved(house, "several:1") == whole
        await house.images.remove("several:1", force=False, prune=True)
        await house.images.load(pieces(part), quiet=True, progress=lambda line: None)
        assert architectures(house, "several:1") == {"s390x"}
        await house.images.load(pieces(whole), quiet=True, progress=lambda line: None, platform=wanted("arm64"))
        assert house.images.get("several:1").architecture == "arm64"
        with pytest.raises(NotFound):
            await house.images.load(pieces(whole), quiet=True, progress=lambda line: None, platform=wanted("386"))
        with pytest.raises(NotFound, match="does not match"):
            await house.images.save(["several:1"], wanted("s390x"))

    with_house(work)


def test_one_platform_is_removed(with_house, pushed) -> None:
    name = f"{pushed}:1"

    async def work(house) -> None:
        await pull_all(house, pushed)
        before = house.blobs()
        main, other = (house.images.get(name, wanted(each)) for each in ("amd64", "s390x"))
        with pytest.raises(NotFound):
            await house.images.remove(name, force=False, prune=True, platforms_only=[wanted("386")])
        house.containers.append(
            Container(
                id="c" * 64,
                name="user",
                created="2024-01-01T00:00:00Z",
                image_id=other.id,
                top_layer=other.top_layer,
                config=Config(),
                host_config=HostConfig(),
                state=State(status="exited"),
                storage_driver="overlay2",
                runtime="native",
                log_driver="json-file",
            )
        )
        with pytest.raises(Conflict, match="must be forced"):
            await house.images.remove(name, force=False, prune=True, platforms_only=[wanted("s390x")])
        with pytest.raises(Conflict, match=f"using its referenced image {other.id[7:19]}"):
            await house.images.remove(name, force=False, prune=True)
        house.containers.clear()
        said = await house.images.remove(name, force=False, prune=True, platforms_only=[wanted("amd64")])
        assert said[0] == {"Deleted": main.id}
        assert architectures(house, name) == {"arm64", "s390x"}
        assert house.images.get(name).architecture == "s390x"
        said = await house.images.remove(other.id, force=False, prune=True)
        assert said[0] == {"Deleted": other.id}
        assert architectures(house, name) == {"arm64"}
        assert len(house.blobs()) < len(before)
        said = await house.images.remove(name, force=False, prune=True, platforms_only=[wanted("arm64")])
        assert said[0] == {"Untagged": name}
        assert not house.blobs()
        assert not await house.layers()

    with_house(work)


def test_all_of_them_are_pruned(with_house, pushed) -> None:
    async def work(house) -> None:
        await pull_all(house, pushed)
        assert (await house.images.prune({}))[0] == []
        said, space = await house.images.prune({"dangling": ["false"]})
        assert len({row["Untagged"] for row in said if "Untagged" in row}) == 2  # tag and digest, each said once
        assert sum("Untagged" in row for row in said) == 2
        assert sum("Deleted" in row for row in said) == 3 + 6
        assert space == sum(map(len, NAMES)) + 3 * len("same")
        assert not house.blobs()
        assert not await house.layers()

    with_house(work)


def test_a_tag_that_moves_to_another_index_leaves_the_others(with_house, make, liar) -> None:
    """What came by the old index keeps its digest, and loses the tag."""
    layouts = []
    for number in (1, 2):
        layout = make.Layout()
        members = [
            (layout.image([make.tar_of({"a": f"{name}{number}".encode()})], architecture=name), name) for name in NAMES
        ]
        index = layout.index_of(*((image, {"os": "linux", "architecture": name}) for image, name in members))
        layout.tag(index, "1")
        layouts.append(layout)
    server = liar(layouts[0])

    async def work(house) -> None:
        repository = f"{server.address}/moving"
        await pull_all(house, repository)
        server.layout = layouts[1]
        await house.pull(repository, "1")
        assert architectures(house, f"{repository}:1") == {"amd64"}
        dangling = house.images.list(all=True, filters={"dangling": ["false"]})
        assert len(dangling) == 4
        assert sorted(len(image.repo_tags) for image in dangling) == [0, 0, 0, 1]
        old = f"{repository}@{layouts[0].index[0]['digest']}"
        assert architectures(house, repository) == set(NAMES)
        await house.images.remove(old, force=False, prune=True)
        assert len(house.images.list(all=True, filters={})) == 1
        await house.images.remove(f"{repository}:1", force=False, prune=True)
        assert not house.blobs()

    with_house(work)


def test_what_is_behind_a_name(with_house, pushed, several) -> None:
    index, members = several[1], several[2]

    async def work(house) -> None:
        for architecture in ("arm64", "amd64"):
            await house.pull(pushed, "1", platform=f"linux/{architecture}")
        image = house.images.get(f"{pushed}:1")
        target = await house.images.variants.of(image)
        assert target.descriptor.digest == index["digest"]
        assert [each.descriptor.digest for each in target.variants] == [members[name]["digest"] for name in NAMES]
        assert [each.image is not None for each in target.variants] == [True, True, False]
        blobs = [
            (house.root / "content/blobs/sha256" / name.removeprefix("sha256:")).stat().st_size for name in blobs_of(image)
        ]
        assert target.variants[0].content == sum(blobs)
        assert house.images.variants.is_main(image)
        assert not house.images.variants.is_main(house.images.get(f"{pushed}:1", wanted("arm64")))
        view = target_view(target)["Manifests"]
        assert view[0]["Size"]["Total"] == sum(blobs) + image.size
        assert view[2]["Available"] is False
        assert view[2]["ImageData"] == {
            "Platform": {"architecture": "s390x", "os": "linux"},
            "Containers": [],
            "Size": {"Unpacked": 0},
        }

    with_house(work)
