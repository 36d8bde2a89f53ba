"""A full disk, and a plugin that denies an image."""

from __future__ import annotations

import os
import subprocess

import pytest

from wharfie.engine.identity import parse_rfc3339
from wharfie.spi.errors import Forbidden, InvalidArgument, OutOfSpace


@pytest.fixture
def small_disk(root):
    """The data root is a file system of 3 MB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(root)], check=True)
    yield root
    subprocess.run(["umount", "-l", str(root)], check=True)


async def pieces(data):
    for at in range(0, len(data), 1 << 16):
        yield data[at : at + (1 << 16)]


@pytest.mark.root
def test_a_full_disk_is_an_error_and_leaves_nothing(with_house, make, liar, small_disk) -> None:
    """But what a pull fetched, for the next attempt, until somebody needs the room."""
    layout = make.Layout()
    layout.tag(layout.image([make.tar_of({"a": os.urandom(2 << 20)})]), "1")  # the blob fits, its layer does not
    server = liar(layout)
    huge = make.tar_of({"a": os.urandom(4 << 20)})

    async def nothing_is_left(house) -> None:
        assert house.images.list(all=True, filters={}) == []
        assert not house.blobs()
        assert not await house.layers()

    async def work(house) -> None:
        with pytest.raises(OutOfSpace):
            await house.pull(f"{server.address}/x", "1")
        await nothing_is_left(house)
        assert sum(path.stat().st_size for path in house.unfinished()) > 1 << 20
        server.seen.clear()
        with pytest.raises(OutOfSpace, match="no space left on device"):
            await house.pull(f"{server.address}/x", "1")
        assert all(begin for path, begin in server.seen if "/blobs/" in path)
        with pytest.raises(OutOfSpace):
            await house.images.load(pieces(huge), quiet=True, progress=lambda line: None)
        await nothing_is_left(house)
        assert not house.unfinished()
        options = {"repository": "x", "tag": "1", "message": "", "changes": [], "platform": ""}
        with pytest.raises(OutOfSpace):
            await house.images.import_(pieces(huge), progress=lambda line: None, **options)
        await nothing_is_left(house)
        assert not house.unfinished()
        small = make.tar_of({"a": b"1"})
        await house.images.import_(pieces(small), progress=lambda line: None, **options)

    with_house(work)


def test_a_plugin_denies_an_image(with_house, make, liar, monkeypatch) -> None:
    layout = make.Layout()
    layout.tag(layout.image([make.tar_of({"a": b"1"})]), "1")
    server = liar(layout)

    async def work(house) -> None:
        asked = []

        async def deny(reference, digest, manifest, index, repository) -> None:
            assert digest == make.digest(manifest)
            assert (repository is not None) == reference.startswith(server.address)
            asked.append(reference)
            raise Forbidden("denied")

        monkeypatch.setattr(house.drivers.hooks, "admit_image", deny)
        with pytest.raises(Forbidden):
            await house.pull(f"{server.address}/x", "1")
        options = {"repository": "x", "tag": "1", "message": "", "changes": [], "platform": ""}
        with pytest.raises(Forbidden):
            await house.images.import_(pieces(make.tar_of({"a": b"1"})), progress=lambda line: None, **options)
        assert asked == [f"{server.address}/x:1", "docker.io/library/x:1"]
        assert house.images.list(all=True, filters={}) == []
        assert not house.blobs()
        assert not await house.layers()
        assert not any("/blobs/" in path for path, _ in server.seen)

    with_house(work)


@pytest.mark.parametrize("created", ["yesterday", "99999-01-01T00:00:00Z", "0000-00-00T00:00:00Z", "2024-01-01"])
def test_an_image_of_no_time_is_refused_and_the_list_of_images_goes_on(with_house, make, liar, created) -> None:
    layout = make.Layout()
    layout.tag(layout.image([make.tar_of({"a": b"1"})], created=created), "1")
    server = liar(layout)

    async def work(house) -> None:
        with pytest.raises(InvalidArgument, match="is no time of RFC 3339"):
            await house.pull(f"{server.address}/x", "1")
        assert house.images.list(all=True, filters={}) == []
        assert not house.blobs()

    with_house(work)


def test_a_time_may_have_an_offset_and_any_decimals(with_house, make, liar) -> None:
    layout = make.Layout()
    layout.tag(layout.image([make.tar_of({"a": b"1"})], created="2024-01-01T02:00:00.1234567891+02:00"), "1")
    server = liar(layout)

    async def work(house) -> None:
        await house.pull(f"{server.address}/x", "1")
        (image,) = house.images.list(all=True, filters={})
        assert parse_rfc3339(image.created) == 1704067200123456789

    with_house(work)
