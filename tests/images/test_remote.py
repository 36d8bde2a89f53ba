"""Looks at a registry: /distribution and docker search."""

from __future__ import annotations

import json

import pytest

from wharfie.engine.images.platforms import Platform
from wharfie.spi.errors import InvalidArgument, NotFound, WharfieError


def test_distribution_of_an_image_and_of_an_index(with_house, make, liar) -> None:
    layout = make.Layout()
    one = layout.image([make.tar_of({"a": b"1"})], architecture="arm64", variant="v8")
    layout.tag(one, "1")
    server = liar(layout)

    async def work(house) -> None:
        found = await house.images.distribution(f"{server.address}/x:1", None)
        assert (found.descriptor.digest, found.descriptor.size) == (one["digest"], one["size"])
        assert found.descriptor.media_type == one["mediaType"]
        assert found.platforms == (Platform("linux", "arm64", "v8"),)
        assert not house.blobs()

        index = layout.index_of(
            (one, {"os": "linux", "architecture": "arm64"}), (one, {"os": "linux", "architecture": "386"})
        )
        layout.index[0] = index
        found = await house.images.distribution(f"{server.address}/x", None)
        assert found.descriptor.digest == index["digest"]
        assert [platform.architecture for platform in found.platforms] == ["arm64", "386"]

        layout.index.clear()
        with pytest.raises(NotFound):
            await house.images.distribution(f"{server.address}/x:1", None)
        with pytest.raises(WharfieError) as caught:
            await house.images.distribution("registry.invalid/golden/x:1", None)
        assert caught.value.message.startswith('Get "https://registry.invalid/v2/": dial tcp: lookup registry.invalid')

    with_house(work)


def test_search(with_house, make, liar) -> None:
    server = liar(make.Layout())
    rows = [
        {"name": "team/busybox", "description": "tools", "star_count": 3, "is_official": True, "is_automated": False},
        {"name": "other", "star_count": 1},
        "rubbish",
    ]

    def answer(handler, path) -> bool:
        return not server.reply(handler, 200, json.dumps({"num_results": 2, "results": rows}).encode())

    server.tamper = answer

    async def work(house) -> None:
        found = await house.images.search(f"{server.address}/busy", 0, {}, None)
        assert [(row.name, row.stars, row.official) for row in found] == [("team/busybox", 3, True), ("other", 1, False)]
        assert server.seen[-1][0] == "/v1/search?q=busy&n=25"
        for filters, names in (
            ({"stars": ["2"]}, ["team/busybox"]),
            ({"is-official": ["false"]}, ["other"]),
            ({"is-automated": ["true"]}, []),
        ):
            found = await house.images.search(f"{server.address}/busy", 5, filters, None)
            assert [row.name for row in found] == names
        for limit, filters in ((101, {}), (-1, {}), (1, {"stars": ["many"]}), (1, {"color": ["red"]})):
            with pytest.raises(InvalidArgument):
                await house.images.search(f"{server.address}/busy", limit, filters, None)
        server.tamper = lambda handler, path: not server.reply(handler, 404)
        with pytest.raises(WharfieError, match="unexpected status code 404"):
            await house.images.search(f"{server.address}/busy", 1, {}, None)
        with pytest.raises(WharfieError) as caught:
            await house.images.search("golden", 1, {}, None)
        assert caught.value.message.startswith('Get "https://index.docker.io/v1/search?q=golden&n=1": dial tcp: ')

    with_house(work)
