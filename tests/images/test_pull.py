from __future__ import annotations


def test_pull_by_tag(with_house, registry, make, tmp_path):
    layout = make.Layout()
    lower, upper = make.tar_of({"bin/a": b"a" * 1000}), make.tar_of({"b": b"b"})
    layout.tag(layout.image([lower, upper]), "1")
    registry.push(layout.write(tmp_path / "oci"), "1", "team/app:1")

    async def work(house) -> None:
        said = await house.pull(f"{registry.address}/team/app", "1")
        image = house.images.get(f"{registry.address}/team/app:1")
        assert image.layers == [make.digest(lower), make.digest(upper)]
        assert await house.layers() == set(image.chain_ids)
        assert house.unfinished() == []
        await house.images.remove(f"{registry.address}/team/app:1", force=False, prune=True)
        assert not house.blobs()
        assert not await house.layers()

    with_house(work)
