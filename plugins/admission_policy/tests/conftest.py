"""Keys, signatures as cosign makes them, and a repository that holds what a test puts there."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from wharfie_admission_policy.signatures import SIGNATURE, STATEMENT, tag_of

from wharfie.spi.errors import InvalidArgument, NotFound
from wharfie.spi.hooks import Repository
from wharfie.spi.registry import Descriptor, Manifest

OCI = "application/vnd.oci.image.manifest.v1+json"


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Signer:
    """A key pair; its public half in a file."""

    def __init__(self, folder: Path, name: str) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}.pub"
        self.file.write_bytes(self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    def sign(self, data: bytes) -> str:
        return base64.b64encode(self.private.sign(data, ec.ECDSA(SHA256()))).decode()


class Memory(Repository):
    """A repository in memory. What it gives is verified, as the contract says."""

    def __init__(self) -> None:
        self.manifests: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.referring: dict[str, list[Descriptor]] = {}

    def manifest(self, tag_or_digest: str) -> Manifest:
        data = self.manifests.get(tag_or_digest)
        if data is None:
            raise NotFound(f"manifest unknown: {tag_or_digest}")
        return Manifest(media_type="", digest=digest_of(data), data=data)

    def blob(self, blob: Descriptor) -> bytes:
        if blob.digest not in self.blobs:
            raise NotFound("blob unknown")
        if len(self.blobs[blob.digest]) != blob.size:
            raise InvalidArgument("blob verification failed")
        return self.blobs[blob.digest]

    def referrers(self, digest: str) -> list[Descriptor]:
        return self.referring.get(digest, [])

    def attach(self, about: str, artifact_type: str, blob: bytes, **layer: Any) -> None:
        """An artifact with one blob that refers to `about`."""
        self.blobs[digest_of(blob)] = blob
        parts = {"mediaType": artifact_type, "digest": digest_of(blob), "size": len(blob), **layer}
        data = json.dumps({"layers": [parts]}).encode()
        self.manifests[digest_of(data)] = data
        found = Descriptor(media_type=OCI, digest=digest_of(data), size=len(data), artifact_type=artifact_type)
        self.referring.setdefault(about, []).append(found)

    def add(self, about: str, statement: bytes, signature: str, **layer: Any) -> None:
        """One more layer of the signatures of `about`."""
        document = json.loads(self.manifests.get(tag_of(about), b'{"layers": []}'))
        self.blobs[digest_of(statement)] = statement
        parts = {"mediaType": STATEMENT, "digest": digest_of(statement), "size": len(statement)}
        document["layers"].append({**parts, "annotations": {SIGNATURE: signature}, **layer})
        self.manifests[tag_of(about)] = json.dumps(document).encode()

    def sign(self, signer: Signer, about: str, name: str) -> None:
        data = statement(about, name)
        self.add(about, data, signer.sign(data))


def statement(about: str, name: str, kind: str = "cosign container image signature") -> bytes:
    critical = {"identity": {"docker-reference": name}, "image": {"docker-manifest-digest": about}, "type": kind}
    return json.dumps({"critical": critical, "optional": None}).encode()


SIGN = "https://sigstore.dev/cosign/sign/v1"


def envelope(signer: Signer, about: str, *, kind: str = "application/vnd.in-toto+json", predicate: str = SIGN) -> bytes:
    """A bundle as `cosign sign --key` of version 3 makes it."""
    said = {"subject": [{"digest": {"sha256": about.removeprefix("sha256:")}, "annotations": {}}]}
    payload = json.dumps({"_type": "https://in-toto.io/Statement/v1", "predicateType": predicate, "predicate": {}, **said})
    signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} {payload}".encode()
    return json.dumps(
        {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"publicKey": {"hint": "x"}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": base64.b64encode(payload.encode()).decode(),
                "payloadType": kind,
                "signatures": [{"sig": signer.sign(signed), "keyid": ""}],
            },
        }
    ).encode()


@pytest.fixture
def make_envelope() -> Any:
    return envelope


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path, "team")


@pytest.fixture
def stranger(tmp_path: Path) -> Signer:
    return Signer(tmp_path, "stranger")


@pytest.fixture
def repository() -> Memory:
    return Memory()


@pytest.fixture
def make_statement() -> Any:
    return statement
