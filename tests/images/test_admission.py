"""The plugin `admission-policy` at work: pulls from Debian's registry, signatures beside the images in it."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from types import SimpleNamespace

import pytest

ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")

from cryptography.hazmat.primitives.hashes import SHA256  # noqa: E402
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: E402

from wharfie.engine.images.artifacts import ArtifactRequest  # noqa: E402
from wharfie.spi.errors import Forbidden, WharfieError  # noqa: E402

OCI = "application/vnd.oci.image"


@pytest.fixture
def key(tmp_path):
    private = ec.generate_private_key(ec.SECP256R1())
    file = tmp_path / "team.pub"
    file.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return SimpleNamespace(private=private, file=file)


@pytest.fixture
def sign(registry, make, key):
    """Push a signature of a digest, as `cosign sign --key` does."""

    def push(digest: str, repository: str, name: str = "") -> None:
        identity = {"docker-reference": f"{registry.address}/{name or repository}"}
        critical = {"identity": identity, "image": {"docker-manifest-digest": digest}}
        statement = json.dumps({"critical": critical | {"type": "cosign container image signature"}}).encode()
        signature = base64.b64encode(key.private.sign(statement, ec.ECDSA(SHA256()))).decode()
        layout = make.Layout()
        layer = layout.blob(statement, "application/vnd.dev.cosign.simplesigning.v1+json")
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": layout.blob(b"{}", f"{OCI}.config.v1+json"),
            "layers": [{**layer, "annotations": {"dev.cosignproject.cosign/signature": signature}}],
        }
        found = layout.blob(json.dumps(manifest).encode(), manifest["mediaType"])
        registry.put(layout.blobs, found, repository, digest.replace(":", "-") + ".sig")

    return push


@pytest.fixture
def rules(registry, key):
    return {"admission-policy": {"rules": [{"images": [f"{registry.address}/signed/**"], "keys": [str(key.file)]}]}}


def test_only_what_is_signed_is_pulled(with_house, registry, make, sign, rules) -> None:
    layout = make.Layout()
    image = layout.image([make.tar_of({"a": b"admission"})])
    for repository in ("signed/app", "signed/other", "elsewhere"):
        registry.put(layout.blobs, image, repository, "1")

    async def work(house) -> None:
        name = f"{registry.address}/signed/app"
        said = []
        with pytest.raises(Forbidden, match=r'"admission-policy" .*has no signature: `cosign sign .*signed/app@sha256:'):
            await house.images.pull(name, "1", platform="", auth=None, progress=said.append)
        assert said == []  # so the API answers with a status of its own
        assert not house.blobs()
        sign(image["digest"], "signed/app")
        await house.pull(name, "1")
        await house.pull(f"{name}@{image['digest']}", "")
        sign(image["digest"], "signed/other", "signed/app")
        with pytest.raises(Forbidden, match=r"made for .*/signed/app, not for .*/signed/other"):
            await house.pull(f"{registry.address}/signed/other", "1")
        with pytest.raises(Forbidden, match="no rule allows"):
            await house.pull(f"{registry.address}/elsewhere", "1")
        with pytest.raises(Forbidden, match="comes from no registry"):
            options = {"repository": "x", "tag": "1", "message": "", "changes": [], "platform": ""}
            await house.images.import_(tar(make), progress=lambda line: None, **options)

    with_house(work, plugins=rules)


def test_a_signed_index_vouches_for_its_images(with_house, registry, make, sign, rules) -> None:
    layout = make.Layout()
    members = [
        (layout.image([make.tar_of({"a": name.encode()})], architecture=name), {"os": "linux", "architecture": name})
        for name in ("amd64", "s390x")
    ]
    index = layout.index_of(*members)
    for member, _ in members:
        registry.put(layout.blobs, member, "signed/multi", member["digest"])
    registry.put(layout.blobs, index, "signed/multi", "1")

    async def work(house) -> None:
        name = f"{registry.address}/signed/multi"
        with pytest.raises(Forbidden, match=index["digest"]):
            await house.pull(name, "1")
        sign(index["digest"], "signed/multi")
        await house.pull(name, "1")
        with pytest.raises(Forbidden):  # by its own digest the index is not known to lead to it
            await house.pull(f"{name}@{members[1][0]['digest']}", "")
        sign(members[1][0]["digest"], "signed/multi")
        await house.pull(f"{name}@{members[1][0]['digest']}", "")

    with_house(work, plugins=rules)


def test_a_registry_that_keeps_silent_denies_and_costs_nobody_else(with_house, make, liar, key, monkeypatch) -> None:
    monkeypatch.setattr("wharfie.engine.images.remote.LOOK_SECONDS", 0.3)
    layout = make.Layout()
    layout.tag(layout.image([make.tar_of({"a": b"silence"})]), "1")
    server, done = liar(layout), threading.Event()
    server.tamper = lambda handler, path: path.endswith(".sig") and done.wait(60)
    rules = [{"images": [f"{server.address}/signed"], "keys": [str(key.file)]}, {"images": [f"{server.address}/free"]}]

    async def work(house) -> None:
        try:
            for _ in range(4):  # its circuit stays closed
                with pytest.raises(Forbidden, match=f"the registry {server.address} takes too long"):
                    await house.pull(f"{server.address}/signed", "1")
            await house.pull(f"{server.address}/free", "1")
        finally:
            done.set()

    with_house(work, plugins={"admission-policy": {"rules": rules}})


def test_settings_change_while_the_engine_runs(with_house, registry, make, rules) -> None:
    layout = make.Layout()
    registry.put(layout.blobs, layout.image([make.tar_of({"a": b"reload"})]), "signed/reload", "1")

    async def work(house) -> None:
        name = f"{registry.address}/signed/reload"
        hooks = house.drivers.hooks
        with pytest.raises(Forbidden):
            await house.pull(name, "1")
        await hooks.reconfigure({"admission-policy": {"rules": [{"images": "wrong"}]}})
        with pytest.raises(WharfieError, match=r"plugins\.admission-policy\.rules\.0\.images.*reload it with SIGHUP"):
            await house.pull(name, "1")
        assert "misconfigured" in {str(row.state) for row in hooks.states() if row.name == "admission-policy"}
        await hooks.reconfigure({"admission-policy": {"rules": [{"images": [f"{registry.address}/signed/*"]}]}})
        await house.pull(name, "1")
        await house.images.remove(f"{name}:1", force=True, prune=True)
        await hooks.reconfigure({"no-such-plugin": {}})
        with pytest.raises(WharfieError, match=r'"no-such-plugin" is required by daemon\.json and not installed'):
            await house.pull(name, "1")
        await hooks.reconfigure({})
        await house.pull(name, "1")

    with_house(work, plugins=rules)


async def tar(make):
    yield make.tar_of({"a": b"1"})


def openssl(*words: object) -> bytes:
    return subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True).stdout


@pytest.mark.parametrize("form", ["tag", "bundle"])
def test_what_openssl_signed(with_house, registry, make, tmp_path, form) -> None:
    """Keys and signatures by another program than what verifies; tampered with, or by another key, they are refused."""
    for name in ("team", "stranger"):
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", tmp_path / f"{name}.key")
        openssl("ec", "-in", tmp_path / f"{name}.key", "-pubout", "-out", tmp_path / f"{name}.pub")

    def signed(data: bytes, key: str) -> str:
        (tmp_path / "signed").write_bytes(data)
        return base64.b64encode(openssl("dgst", "-sha256", "-sign", tmp_path / f"{key}.key", tmp_path / "signed")).decode()

    layout = make.Layout()

    async def attach(house, name: str, image: str, key: str, *, tamper: bool = False) -> None:
        hexdigest = image.removeprefix("sha256:")
        if form == "bundle":
            kind = "application/vnd.in-toto+json"
            said = {"predicateType": "https://sigstore.dev/cosign/sign/v1", "subject": [{"digest": {"sha256": hexdigest}}]}
            payload = json.dumps(said)
            signature = signed(f"DSSEv1 {len(kind)} {kind} {len(payload)} {payload}".encode(), key)
            payload = payload.replace("}", " }") if tamper else payload
            sent = {"payloadType": kind, "payload": base64.b64encode(payload.encode()).decode()}
            bundle = json.dumps({"dsseEnvelope": {**sent, "signatures": [{"sig": signature}]}}).encode()
            request = ArtifactRequest(artifact_type="application/vnd.dev.sigstore.bundle.v0.3+json", attach=True)
            await house.images.artifacts.push(f"{name}@{image}", tar_with(bundle), request, None, lambda line: None)
            return
        critical = {"identity": {"docker-reference": name}, "image": {"docker-manifest-digest": image}}
        statement = json.dumps({"critical": critical | {"type": "cosign container image signature"}}).encode()
        signature = signed(statement, key)
        layer = layout.blob(statement + b" " * tamper, "application/vnd.dev.cosign.simplesigning.v1+json")
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": layout.blob(b"{}", f"{OCI}.config.v1+json"),
            "layers": [{**layer, "annotations": {"dev.cosignproject.cosign/signature": signature}}],
        }
        found = layout.blob(json.dumps(manifest).encode(), manifest["mediaType"])
        registry.put(layout.blobs, found, name.partition("/")[2], f"sha256-{hexdigest}.sig")

    async def tar_with(data: bytes):
        yield make.tar_of({"bundle.json": data})

    async def work(house) -> None:
        for case, key, tamper in (("good", "team", False), ("wrong", "stranger", False), ("changed", "team", True)):
            name = f"{registry.address}/openssl/{form}-{case}"
            image = layout.image([make.tar_of({"a": case.encode()})])
            registry.put(layout.blobs, image, name.partition("/")[2], "1")
            with pytest.raises(Forbidden, match="has no signature"):
                await house.pull(name, "1")
            await attach(house, name, image["digest"], key, tamper=tamper)
            if case == "good":
                await house.pull(name, "1")
                continue
            with pytest.raises(Forbidden, match="by none of the keys"):
                await house.pull(name, "1")

    rule = {"images": [f"{registry.address}/openssl/*"], "keys": [str(tmp_path / "team.pub")], "signed-for": ["**"]}
    with_house(work, plugins={"admission-policy": {"rules": [rule]}})
