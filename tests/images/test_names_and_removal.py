from __future__ import annotations

import json

import pytest

from wharfie.engine.images import platforms, reference
from wharfie.engine.model.config import Config
from wharfie.engine.model.container import Container, State
from wharfie.engine.model.host import HostConfig
from wharfie.spi.errors import Conflict, InvalidArgument, NotFound


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1", "docker.io/library/busybox:1", "busybox:1"),
        ("docker.io/library/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("team/app", "docker.io/team/app", "team/app"),
        ("library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/x", "localhost/x", "localhost/x"),
        ("localhost:5000/x:1", "localhost:5000/x:1", "localhost:5000/x:1"),
        ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b"),
        ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
        ("Host/x", "Host/x", "Host/x"),
        ("x@sha256:" + "a" * 64, "docker.io/library/x@sha256:" + "a" * 64, "x@sha256:" + "a" * 64),
        ("x:1@sha256:" + "a" * 64, "docker.io/library/x:1@sha256:" + "a" * 64, "x:1@sha256:" + "a" * 64),
    ],
)
def test_names(text, canonical, familiar) -> None:
    name = reference.parse(text)
    assert (name.canonical, name.familiar) == (canonical, familiar)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("BAD::ref", "invalid reference format: repository name (library/BAD) must be lowercase"),
        ("Bad_UPPER", "invalid reference format: repository name (library/Bad_UPPER) must be lowercase"),
        ("", "invalid reference format"),
        (":1", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("-x", "invalid reference format"),
        ("x:" + "t" * 129, "invalid reference format"),
        ("x y", "invalid reference format"),
        ("x\n", "invalid reference format"),
        ("../x", "invalid reference format"),
        ("x@sha256:" + "a" * 32, "invalid checksum digest length"),
        ("x@md5:" + "a" * 32, "unsupported digest algorithm"),
        ("a" * 64, f"invalid repository name ({'a' * 64}), cannot specify 64-byte hexadecimal strings"),
        ("h.io/" + "a" * 256, "repository name must not be more than 255 characters"),
    ],
)
def test_names_that_are_none(text, message) -> None:
    with pytest.raises(InvalidArgument) as caught:
        reference.parse(text)
    assert caught.value.message == message


def test_platforms() -> None:
    assert str(platforms.parse("linux/aarch64")) == "linux/arm64/v8"
    assert str(platforms.parse("x86_64")) == "linux/amd64"
    assert [str(each) for each in platforms.parse("linux/arm/v7").accepts()] == [
        "linux/arm/v7",
        "linux/arm/v6",
        "linux/arm/v5",
    ]
    assert [str(each) for each in platforms.parse("linux/amd64").accepts()] == ["linux/amd64", "linux/386"]


def container_of(image, status="exited") -> Container:
    return Container(
        id="9e07332093261234",
        name="user",
        created="2024-01-01T00:00:00Z",
        image_id=image.id,
        top_layer=image.top_layer,
        config=Config(),
        host_config=HostConfig(),
        state=State(status=status),
        storage_driver="overlay2",
        runtime="native",
        log_driver="json-file",
    )


async def imported(house, make, name, files, **options):
    async def body():
        yield make.tar_of(files)

    repository, _, tag = name.partition(":")
    options = {"message": "", "changes": [], "platform": "", "progress": lambda line: None, **options}
    key = await house.images.import_(body(), repository=repository, tag=tag, **options)
    return house.images.get(key)


def test_tags_and_their_removal(with_house, make) -> None:
    async def work(house) -> None:
        image = await imported(house, make, "busybox:latest", {"a": b"1"})
        await house.images.tag("busybox", "golden-tag", "1")
        assert house.images.get(image.id).repo_tags == ["busybox:latest", "golden-tag:1"]
        index = json.loads((house.root / "content/index.json").read_text())
        assert [entry["annotations"]["io.containerd.image.name"] for entry in index["manifests"]] == [
            "docker.io/library/busybox:latest",
            "docker.io/library/golden-tag:1",
        ]
        for ref in ("golden-tag:1", image.id, image.id[7:], image.id[7:19], image.id[:20]):
            assert house.images.get(ref).id == image.id
        assert await house.images.remove("golden-tag:1", force=False, prune=True) == [{"Untagged": "golden-tag:1"}]
        assert await house.images.remove("busybox", force=False, prune=True) == [
            {"Untagged": "busybox:latest"},
            {"Deleted": image.id},
            {"Deleted": image.top_layer},
        ]
        with pytest.raises(NotFound, match=r"^No such image: busybox:latest$"):
            house.images.get("busybox")
        with pytest.raises(NotFound, match=r"^No such image: golden-missing:1$"):
            await house.images.remove("golden-missing:1", force=True, prune=True)
        with pytest.raises(InvalidArgument, match=r"repository name \(library/Bad_UPPER\) must be lowercase"):
            house.images.get("Bad_UPPER")
        assert not await house.layers()
        assert not house.blobs()
        assert [action for action, *_ in house.seen] == ["import", "tag", "untag", "untag", "delete"]
        assert house.seen[1][2] == {"name": "golden-tag:1"}
        assert house.seen[-1][1:] == (image.id, {"name": image.id})

    with_house(work)


def test_removal_by_id_of_an_image_with_several_names(with_house, make) -> None:
    async def work(house) -> None:
        image = await imported(house, make, "x:1", {"a": b"1"})
        await house.images.tag("x:1", "y", "1")
        with pytest.raises(Conflict) as caught:
            await house.images.remove(image.id[7:19], force=False, prune=True)
        assert caught.value.message == (
            f"conflict: unable to delete {image.id[7:19]} (must be forced) - image is referenced in multiple repositories"
        )
        said = await house.images.remove(image.id, force=True, prune=True)
        assert [next(iter(row)) for row in said] == ["Untagged", "Untagged", "Deleted", "Deleted"]

    with_house(work)


def test_containers_hold_their_images(with_house, make) -> None:
    async def work(house) -> None:
        image = await imported(house, make, "busybox:latest", {"a": b"1"})
        short = image.id[7:19]
        house.containers = [container_of(image, "running")]
        with pytest.raises(Conflict) as caught:
            await house.images.remove("busybox:latest", force=False, prune=True)
        assert caught.value.message == (
            'conflict: unable to remove repository reference "busybox:latest" (must force) - '
            f"container 9e0733209326 is using its referenced image {short}"
        )
        with pytest.raises(Conflict) as caught:
            await house.images.remove(image.id, force=True, prune=True)
        assert caught.value.message == (
            f"conflict: unable to delete {short} (cannot be forced) - image is being used by running container 9e0733209326"
        )
        house.containers = [container_of(image)]
        with pytest.raises(Conflict) as caught:
            await house.images.remove(image.id, force=False, prune=True)
        assert caught.value.message == (
            f"conflict: unable to delete {short} (must be forced) - image is being used by stopped container 9e0733209326"
        )
        await house.images.remove(image.id, force=True, prune=True)
        assert house.images.list(all=True, filters={}) == []
        assert house.images.wanted_layers() == {image.top_layer}

    with_house(work)


def test_layers_of_a_removed_image_go_with_its_last_container(with_house, make) -> None:
    async def remove(house):
        image = await imported(house, make, "x:1", {"a": b"1"})
        house.containers = [container_of(image)]
        await house.images.remove("x:1", force=True, prune=True)
        return image

    async def while_it_stands(house) -> None:
        house.events.emit("container", "destroy", "another", {})
        await house.images.close()
        assert house.images.wanted_layers() == {image.top_layer}
        assert await house.layers() == {image.top_layer}

    async def when_it_goes(house) -> None:
        house.containers = []
        house.events.emit("container", "destroy", "9e07332093261234", {})
        await house.images.close()
        assert await house.layers() == set()

    async def forgotten(house) -> None:
        assert house.images.wanted_layers() == frozenset()
        assert house.blobs() == set()

    image = with_house(remove)
    with_house(while_it_stands, using=[container_of(image)])
    with_house(when_it_goes, using=[container_of(image)])
    with_house(forgotten)


def test_lists_and_filters(with_house, make) -> None:
    async def work(house) -> None:
        old = await imported(house, make, "team/a:1", {"a": b"1"}, changes=["LABEL k=v"])
        new = await imported(house, make, "", {"b": b"2"})

        def ids(all=False, **filters):
            return [image.id for image in house.images.list(all=all, filters=filters)]

        assert ids() == [new.id, old.id]
        assert ids(dangling=["true"]) == [new.id]
        assert ids(dangling=["false"]) == [old.id]
        assert ids(label=["k"]) == ids(label=["k=v"]) == [old.id]
        assert ids(label=["k=w"]) == []
        assert ids(since=["team/a:1"]) == [new.id]
        assert ids(before=[new.id]) == [old.id]
        for pattern in ("team/a", "team/*", "*/a:1", "team/a:1"):
            assert ids(reference=[pattern]) == [old.id]
        assert ids(reference=["*"]) == []
        assert ids(until=["1h"]) == []
        with pytest.raises(InvalidArgument, match="invalid filter 'x'"):
            ids(x=["y"])
        removed, space = await house.images.prune({"label": ["golden=never"]})
        assert (removed, space) == ([], 0)
        removed, space = await house.images.prune({})
        assert (removed, space) == ([{"Deleted": new.id}, {"Deleted": new.top_layer}], 1)
        removed, space = await house.images.prune({"dangling": ["false"]})
        assert removed[0] == {"Untagged": "team/a:1"}
        assert ids() == []

    with_house(work)
