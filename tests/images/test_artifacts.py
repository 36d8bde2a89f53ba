"""Artifacts: pushed, attached, listed, pulled, with a registry that has the referrers API and Debian's, which has not."""

from __future__ import annotations

import gzip
import io
import json
import tarfile

import pytest

from wharfie.engine.images import documents
from wharfie.engine.images.artifacts import TITLE, ArtifactRequest
from wharfie.engine.images.folders import DIGEST, UNPACK
from wharfie.kit.peer import Peer
from wharfie.spi.errors import InvalidArgument, NotFound

SBOM = "application/spdx+json"
OCI = "application/vnd.oci.image"


@pytest.fixture
def modern():
    """A registry with the API."""
    peer = Peer()
    yield peer.server
    peer.stop()


def tar_of(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


async def pieces(data):
    yield data


async def push(house, name, data, **request):
    return await house.images.artifacts.push(name, pieces(data), ArtifactRequest(**request), None, lambda line: None)


async def pulled(house, name) -> dict[str, bytes]:
    _, stream = await house.images.artifacts.pull(name, None)
    data = b"".join([piece async for piece in stream])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}


def test_files_go_to_a_registry_and_come_back(with_house, registry) -> None:
    name = f"{registry.address}/artifacts/files:1"

    async def work(house) -> None:
        made = await push(
            house, name, tar_of(a=b"one", b=b"two"), media_types={"b": "text/plain"}, annotations={"who": "we"}
        )
        assert await pulled(house, name) == {"a": b"one", "b": b"two"}
        assert await pulled(house, name.removesuffix(":1") + "@" + made.digest) == {"a": b"one", "b": b"two"}
        assert not house.blobs() and not house.unfinished()
        assert made.annotations["who"] == "we" and made.artifact_type == "application/vnd.unknown.artifact.v1"
        with pytest.raises(NotFound):
            await pulled(house, f"{registry.address}/artifacts/files:none")
        with pytest.raises(InvalidArgument, match="not an image"):
            await house.pull(name.removesuffix(":1"), "1")

    with_house(work)


@pytest.mark.parametrize("kind", ["with the API", "by the tag"])
@pytest.mark.parametrize("driver", ["oci", "plain"])
def test_referrers(with_house, registry, modern, make, kind, driver) -> None:
    api = kind == "with the API"
    server = modern if api else registry.address
    repository = f"{server}/artifacts/{driver}-{'api' if api else 'tag'}"
    layout = make.Layout()
    registry.put(layout.blobs, layout.image([make.tar_of({"a": b"1"})]), repository.partition("/")[2], "1")
    image = f"{repository}:1" if not api else f"{server}/plain/image:v1"

    async def listed(house, artifact_type="") -> list:
        return list(await house.images.artifacts.referrers(image, artifact_type, None))

    async def attach(house) -> None:
        before = await listed(house)
        assert len(before) == (1 if api else 0)  # the kit's registry has one to begin with
        first = await push(house, image, tar_of(sbom=b"{}"), artifact_type=SBOM, attach=True, annotations={"by": "us"})
        second = await push(house, image, tar_of(), artifact_type="application/signature", attach=True)
        assert [each.digest for each in await listed(house, SBOM)] == [first.digest]
        found = {each.digest: each for each in await listed(house)}
        assert {first.digest, second.digest} <= set(found)
        assert found[first.digest].annotations["by"] == "us"
        assert await pulled(house, f"{image.rpartition(':')[0]}@{first.digest}") == {"sbom": b"{}"}

    async def look(house) -> None:
        assert len(await listed(house)) == (3 if api else 2)

    with_house(attach)
    insecure = {"registry.plain": {"insecure-registries": [server]}}
    with_house(look, registry_driver=driver, drivers=insecure if driver == "plain" else {})


@pytest.mark.parametrize(
    ("name", "request_", "message"),
    [
        ("x/y:1", {"artifact_type": "no type"}, "is not a media type"),
        ("x/y:1", {"media_types": {"a": "text"}}, "is not a media type"),
        ("x/y:1", {"attach": True}, "needs an artifact type"),
        ("x/y@sha256:" + "0" * 64, {}, "pushed under a tag"),
        ("X", {}, "invalid reference format"),
    ],
)
def test_requests_that_are_wrong(with_house, name, request_, message) -> None:
    async def work(house) -> None:
        with pytest.raises(InvalidArgument, match=message):
            await push(house, name, tar_of(a=b"1"), **request_)

    with_house(work)


def test_no_file_leads_out_of_a_folder(with_house, registry, make) -> None:
    async def work(house) -> None:
        for number, title in enumerate(("../x", "/etc/x", "a/../../x", "", "a\nb")):
            layout = make.Layout()
            blob = layout.blob(b"content", "text/plain")
            manifest = {
                "schemaVersion": 2,
                "mediaType": f"{OCI}.manifest.v1+json",
                "config": layout.blob(b"{}", "application/vnd.oci.empty.v1+json"),
                "layers": [{**blob, "annotations": {TITLE: title}}],
            }
            made = layout.blob(json.dumps(manifest).encode(), manifest["mediaType"])
            registry.put(layout.blobs, made, "artifacts/bad", str(number))
            with pytest.raises(InvalidArgument, match="leads out of a folder"):
                await pulled(house, f"{registry.address}/artifacts/bad:{number}")

    with_house(work)


FOLDER = {UNPACK: "true", TITLE: "docs"}


def folder_of(*entries: tuple[str, bytes, bytes]) -> bytes:
    """A compressed tar: (name, kind, content or target of a link)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            info.linkname = content.decode() if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def as_artifact(registry, make, blob: bytes, annotations, tag: str) -> None:
    layout = make.Layout()
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": layout.blob(b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [{**layout.blob(blob, f"{OCI}.layer.v1.tar+gzip"), "annotations": annotations}],
    }
    registry.put(layout.blobs, layout.blob(json.dumps(manifest).encode(), manifest["mediaType"]), "artifacts/folder", tag)


def test_a_folder_as_oras_pushes_it(with_house, registry, make) -> None:
    blob = folder_of(
        ("docs", tarfile.DIRTYPE, b""),
        ("docs/a", tarfile.REGTYPE, b"one"),
        ("docs/below/b", tarfile.REGTYPE, b"two" * 100_000),
        ("docs/below/up", tarfile.SYMTYPE, b"../a"),
        ("docs/same", tarfile.LNKTYPE, b"docs/a"),
    )
    digest = documents.digest_of(gzip.decompress(blob))
    as_artifact(registry, make, blob, {**FOLDER, DIGEST: digest}, "good")
    as_artifact(registry, make, blob, {**FOLDER, DIGEST: "sha256:" + "0" * 64}, "other")

    async def work(house) -> None:
        _, stream = await house.images.artifacts.pull(f"{registry.address}/artifacts/folder:good", None)
        with tarfile.open(fileobj=io.BytesIO(b"".join([piece async for piece in stream]))) as tar:
            assert [(entry.name, entry.type, entry.linkname) for entry in tar] == [
                ("docs", tarfile.DIRTYPE, ""),
                ("docs/a", tarfile.REGTYPE, ""),
                ("docs/below/b", tarfile.REGTYPE, ""),
                ("docs/below/up", tarfile.SYMTYPE, "../a"),
                ("docs/same", tarfile.LNKTYPE, "docs/a"),
            ]
            assert tar.extractfile("docs/below/b").read() == b"two" * 100_000
        with pytest.raises(InvalidArgument, match=r"but io\.deis\.oras\.content\.digest says"):
            await pulled(house, f"{registry.address}/artifacts/folder:other")
        assert not house.blobs() and not house.unfinished()

    with_house(work)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (("elsewhere/a", tarfile.REGTYPE, b"x"), "is not in it"),
        (("docs/../a", tarfile.REGTYPE, b"x"), "is not in it"),
        (("/docs/a", tarfile.REGTYPE, b"x"), "is not in it"),
        (("docsmore/a", tarfile.REGTYPE, b"x"), "is not in it"),
        (("docs/l", tarfile.SYMTYPE, b"../elsewhere"), "leads out of it"),
        (("docs/l", tarfile.SYMTYPE, b"/etc/passwd"), "leads out of it"),
        (("docs/l", tarfile.LNKTYPE, b"etc/passwd"), "leads out of it"),
        (("docs/l", tarfile.CHRTYPE, b""), "no plain file, folder or link"),
        (("docs/l", tarfile.FIFOTYPE, b""), "no plain file, folder or link"),
        (None, "invalid tar header"),
    ],
)
def test_folders_that_reach_out_of_themselves(with_house, registry, make, entry, message) -> None:
    blob = folder_of(("docs/a", tarfile.REGTYPE, b"x" * 2_000_000), entry) if entry else gzip.compress(b"no tar" * 1000)
    as_artifact(registry, make, blob, FOLDER, "bad")

    async def work(house) -> None:
        with pytest.raises(InvalidArgument, match=message):
            await pulled(house, f"{registry.address}/artifacts/folder:bad")
        assert not house.blobs() and not house.unfinished()

    with_house(work)


def test_names_and_digests_that_cannot_be_pushed(with_house, registry) -> None:
    async def work(house) -> None:
        name = f"{registry.address}/artifacts/names:1"
        with pytest.raises(InvalidArgument, match="is no name for a file"):
            await push(house, name, tar_of(**{"a\nb": b"1"}))
        with pytest.raises(InvalidArgument, match="is not the digest of the tar"):
            await push(house, name, tar_of(a=b"1"), folders={"a": "sha256:1"})

    with_house(work)
