from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import subprocess
import tarfile

import pytest
import zstandard

from wharfie.spi.errors import InvalidArgument, NotFound


async def body_of(data, step=50_000):
    for at in range(0, len(data), step):
        yield data[at : at + step]


async def load(house, data, **options):
    said = []
    options = {"quiet": True, **options}
    await house.images.load(body_of(data), progress=lambda line: said.append(dict(line)), **options)
    return said


async def save(house, *names):
    return b"".join([piece async for piece in await house.images.save(names)])


def docker_archive(make, layers, tags, **extra):
    """As `docker save` wrote it before version 25."""
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2020-01-02T03:04:05Z",
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [make.digest(layer) for layer in layers]},
            **extra,
        }
    ).encode()
    files = {f"{make.digest(config)[7:]}.json": config}
    for at, layer in enumerate(layers):
        files[f"layer{at}/VERSION"] = b"1.0"
        files[f"layer{at}/layer.tar"] = layer
    entry = {"Config": next(iter(files)), "RepoTags": tags, "Layers": [f"layer{at}/layer.tar" for at in range(len(layers))]}
    files["manifest.json"] = json.dumps([entry]).encode()
    return make.tar_of(files)


@pytest.mark.parametrize(
    "compress",
    [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress],
    ids=["plain", "gzip", "bzip2", "xz", "zstd"],
)
def test_a_docker_archive_in_every_compression(with_house, make, compress) -> None:
    lower, upper = make.tar_of({"a": b"a" * 5000}), make.tar_of({"b": b"b"})
    archive = compress(docker_archive(make, [lower, upper], ["busybox:latest", "127.0.0.1:5000/x/y:2"]))

    async def work(house) -> None:
        assert await load(house, archive) == [
            {"stream": "Loaded image: busybox:latest\n"},
            {"stream": "Loaded image: 127.0.0.1:5000/x/y:2\n"},
        ]
        image = house.images.get("busybox")
        assert image.repo_tags == ["127.0.0.1:5000/x/y:2", "busybox:latest"]
        assert await house.layers() == set(image.chain_ids)
        assert house.unfinished() == []
        assert [action for action, *_ in house.seen] == ["load"]

    with_house(work)


def test_progress_lines_of_a_load(with_house, make) -> None:
    layer = make.tar_of({"a": b"a" * 5000})

    async def work(house) -> None:
        said = await load(house, docker_archive(make, [layer], ["x:1"]), quiet=False)
        lines = [line for line in said if line.get("status") == "Loading layer"]
        assert lines[-1]["id"] == make.digest(layer)[7:19]
        assert lines[-1]["progressDetail"] == {"current": len(layer), "total": len(layer)}
        assert said[-1] == {"stream": "Loaded image: x:1\n"}

    with_house(work)


def test_a_loaded_tag_is_taken_from_the_image_that_had_it(with_house, make) -> None:
    one = docker_archive(make, [make.tar_of({"a": b"1"})], ["x:1"])
    two = docker_archive(make, [make.tar_of({"a": b"2"})], ["x:1"])

    async def work(house) -> None:
        await load(house, one)
        old = house.images.get("x:1")
        said = await load(house, two)
        assert said[0] == {
            "stream": f"The image x:1 already exists, renaming the old one with ID {old.id} to empty string\n"
        }
        assert house.images.get(old.id).repo_tags == []

    with_house(work)


def test_an_archive_without_a_name_says_the_id(with_house, make) -> None:
    async def work(house) -> None:
        said = await load(house, docker_archive(make, [make.tar_of({"a": b"1"})], None))
        (image,) = house.images.list(all=False, filters={})
        assert said == [{"stream": f"Loaded image ID: {image.id}\n"}]

    with_house(work)


def test_what_skopeo_writes_and_reads(with_house, make, tmp_path) -> None:
    layout = make.Layout()
    layout.tag(layout.image([make.tar_of({"bin/a": b"a" * 10000}), make.tar_of({"b": b"b"})]), "1")
    folder = layout.write(tmp_path / "oci")
    for form, archive in (("docker-archive", tmp_path / "docker.tar"), ("oci-archive", tmp_path / "oci.tar")):
        subprocess.run(
            ["skopeo", "copy", "--quiet", f"oci:{folder}:1", f"{form}:{archive}:example.com/made/{form}:1"], check=True
        )

    async def work(house) -> None:
        for form, archive in (("docker-archive", tmp_path / "docker.tar"), ("oci-archive", tmp_path / "oci.tar")):
            await load(house, archive.read_bytes())
            assert house.images.get(f"example.com/made/{form}:1").config.cmd == ["sh"]
        saved = tmp_path / "saved.tar"
        saved.write_bytes(await save(house, "example.com/made/oci-archive:1"))

    with_house(work)
    for form in ("docker-archive", "oci-archive"):
        command = ["skopeo", "copy", "--quiet", f"{form}:{tmp_path / 'saved.tar'}", f"dir:{tmp_path / form}"]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr


def test_saved_and_loaded_again_it_is_the_same(with_house, make, root, tmp_path) -> None:
    archive = docker_archive(make, [make.tar_of({"a": b"1"}), make.tar_of({"b": b"2"})], ["busybox:latest", "busybox:2"])

    async def write(house) -> tuple[bytes, dict]:
        await load(house, archive)
        data = await save(house, "busybox")
        before = house.images.get("busybox").dump()
        await house.images.remove(before["Id"], force=True, prune=True)
        assert not house.blobs()
        return data, before

    async def read(house) -> None:
        await load(house, data)
        after = house.images.get("busybox").dump()
        before.pop("LastTagged")
        after.pop("LastTagged")
        assert after == before

    data, before = with_house(write)
    with_house(read)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()
        manifest = json.load(tar.extractfile("manifest.json"))
        repositories = json.load(tar.extractfile("repositories"))
    assert names[:2] == ["blobs", "blobs/sha256"]
    assert names[-4:] == ["index.json", "manifest.json", "oci-layout", "repositories"]
    assert sorted(manifest[0]["RepoTags"]) == ["busybox:2", "busybox:latest"]
    assert set(manifest[0]) == {"Config", "RepoTags", "Layers", "LayerSources"}
    assert set(repositories["busybox"]) == {"2", "latest"}


def test_saving_what_is_not_there(with_house) -> None:
    async def work(house) -> None:
        with pytest.raises(NotFound, match="reference does not exist: No such image: nothing:latest"):
            await house.images.save(["nothing"])

    with_house(work)


def bad_archives(make):
    layer = make.tar_of({"a": b"1"})
    good = docker_archive(make, [layer], ["x:1"])
    truncated_layer = layer[:700]
    wrong = make.tar_of({"a": b"2"})
    yield "no tar", b"hello" * 1000
    yield "truncated", good[: len(good) // 2]
    yield "truncated gzip", gzip.compress(good)[:-200]
    yield "other things", make.tar_of({"x": b"y"})
    yield "no JSON", make.tar_of({"manifest.json": b"{"})
    yield "deep JSON", make.tar_of({"manifest.json": b"[" * 100_000})
    yield "no list", make.tar_of({"manifest.json": b"{}"})
    yield "no config", make.tar_of({"manifest.json": b'[{"Config":"c","Layers":[]}]'})
    yield "climbing", make.tar_of({"manifest.json": b'[{"Config":"../../etc/passwd","Layers":[]}]'})
    yield "bad tag", docker_archive(make, [layer], ["X:1"])
    yield "truncated layer", docker_archive(make, [truncated_layer], ["x:1"])
    yield "diff id", docker_archive(make, [layer], ["x:1"], rootfs={"type": "layers", "diff_ids": [make.digest(wrong)]})
    yield "counts", docker_archive(make, [layer], ["x:1"], rootfs={"type": "layers", "diff_ids": []})
    yield (
        "path as diff id",
        docker_archive(make, [layer], ["x:1"], rootfs={"type": "layers", "diff_ids": ["sha256:../../x"]}),
    )


def test_bad_archives_are_refused_and_leave_nothing(with_house, make) -> None:
    async def work(house) -> None:
        for what, data in bad_archives(make):
            with pytest.raises(InvalidArgument):
                await load(house, data)
                pytest.fail(f"accepted: {what}")
            assert house.images.list(all=True, filters={}) == [], what
            assert not house.blobs(), what
            assert not house.unfinished(), what
            assert not await house.layers(), what

    with_house(work)


def test_a_bomb_takes_no_memory(with_house, make) -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(300 << 20))

    async def work(house) -> None:
        import resource

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(InvalidArgument):
            await load(house, bomb)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
        assert not house.unfinished()

    with_house(work)


def test_import(with_house, make) -> None:
    layer = make.tar_of({"hello.txt": b"hi\n"})

    async def import_(house, data, **options) -> str:
        options = {"repository": "made", "tag": "1", "message": "m", "changes": [], "platform": "", **options}
        said = []
        key = await house.images.import_(body_of(data), progress=lambda line: said.append(dict(line)), **options)
        assert said == [{"status": key}]
        return key

    async def work(house) -> None:
        changes = ["CMD sh", "ENV A=1 B='x y'", "EXPOSE 80 443/udp", "LABEL k=v", "VOLUME /data", "WORKDIR /srv"]
        changes += ["USER nobody", "STOPSIGNAL SIGINT", 'ENTRYPOINT ["/e", "f"]', "ONBUILD RUN x"]
        changes += ["HEALTHCHECK --interval=5s --retries=2 CMD true"]
        key = await import_(house, gzip.compress(layer), changes=changes)
        image = house.images.get("made:1")
        config = image.config
        assert image.id == key
        assert image.layers == [make.digest(layer)]
        assert image.comment == "m"
        assert config.cmd == ["/bin/sh", "-c", "sh"]
        assert config.env == ["A=1", "B=x y"]
        assert config.exposed_ports == {"80/tcp": {}, "443/udp": {}}
        assert (config.labels, config.volumes, config.working_dir) == ({"k": "v"}, {"/data": {}}, "/srv")
        assert (config.user, config.stop_signal, config.entrypoint) == ("nobody", "SIGINT", ["/e", "f"])
        assert config.healthcheck.test == ["CMD-SHELL", "true"]
        assert (config.healthcheck.interval, config.healthcheck.retries) == (5_000_000_000, 2)
        history = house.images.history("made:1")
        assert [(item.id, item.comment, item.size) for item in history] == [(key, "m", 3)]
        for bad in ("FOO x", "CMD", "EXPOSE 0", "ENV x", "HEALTHCHECK maybe", "ONBUILD FROM x"):
            with pytest.raises(InvalidArgument):
                await import_(house, layer, changes=[bad])
        with pytest.raises(InvalidArgument, match="refusing to create a tag with a digest"):
            await import_(house, layer, repository="x@" + make.digest(b""), tag="")
        with pytest.raises(InvalidArgument):
            await import_(house, b"no tar at all" * 100)
        assert len(house.blobs()) == 3

    with_house(work)
