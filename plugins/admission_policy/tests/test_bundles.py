"""Signatures that refer to their image: bundles, and cosign's older form."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from wharfie_admission_policy import bundles
from wharfie_admission_policy.plugin import AdmissionPolicy
from wharfie_admission_policy.settings import Settings
from wharfie_admission_policy.signatures import SIGNATURE, STATEMENT

from wharfie.spi.errors import Unavailable

APP = "registry.example/team/app"
MANIFEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"


@pytest.fixture
def objection(signer, repository):
    """Why the image is denied; `signed_for`: of the rule."""

    def ask(*signed_for: str) -> str:
        plugin = AdmissionPolicy()
        rule = {"images": [APP], "keys": [str(signer.file)], **({"signed-for": list(signed_for)} if signed_for else {})}
        plugin.configure(Settings.model_validate({"rules": [rule]}))
        denial = plugin.admit_image(f"{APP}:1", MANIFEST, "", repository)
        return denial.reason if denial is not None else ""

    return ask


def test_a_bundle_counts_where_it_may_be_for_any_repository(signer, repository, objection, make_envelope) -> None:
    repository.attach(MANIFEST, BUNDLE, make_envelope(signer, MANIFEST))
    assert "a bundle, which names no repository" in objection()
    assert objection("**") == ""
    assert "names no repository" in objection("registry.example/**")


def test_a_bundle_with_a_plain_signature(signer, repository, objection) -> None:
    signature = signer.private.sign(bytes.fromhex(MANIFEST[7:]), ec.ECDSA(Prehashed(SHA256())))
    said = {"messageSignature": {"signature": base64.b64encode(signature).decode()}}
    repository.attach(MANIFEST, BUNDLE, json.dumps(said).encode())
    assert objection("**") == ""


@pytest.mark.parametrize(
    "kind", ["stranger", "other digest", "other predicate", "other payload type", "tampered", "text", "{}", "[]", "deep"]
)
def test_bundles_that_count_for_nothing(signer, stranger, repository, objection, make_envelope, kind) -> None:
    good = json.loads(make_envelope(signer, MANIFEST))
    other = json.loads(make_envelope(signer, OTHER))
    good["dsseEnvelope"]["payload"] = other["dsseEnvelope"]["payload"]
    bundle = {
        "stranger": make_envelope(stranger, MANIFEST),
        "other digest": make_envelope(signer, OTHER),
        "other predicate": make_envelope(signer, MANIFEST, predicate="https://cyclonedx.org/bom"),
        "other payload type": make_envelope(signer, MANIFEST, kind="text/plain"),
        "tampered": json.dumps(good).encode(),
        "text": b"no json",
        "{}": b"{}",
        "[]": b"[]",
        "deep": b"[" * 100_000,
    }[kind]
    repository.attach(MANIFEST, BUNDLE, bundle)
    assert "it is signed, but by none of the keys" in objection("**")
    repository.attach(MANIFEST, BUNDLE, make_envelope(signer, MANIFEST))
    assert objection("**") == ""


def test_what_is_not_there_or_too_large_is_passed_over(signer, repository, objection, make_envelope) -> None:
    data = make_envelope(signer, MANIFEST)
    repository.attach(MANIFEST, BUNDLE, data, size=bundles.LIMIT + 1)
    repository.attach(MANIFEST, BUNDLE, data, digest=OTHER)
    repository.attach(MANIFEST, BUNDLE, data, digest=5)
    repository.manifests[repository.referring[MANIFEST][2].digest] = b"{}"
    repository.attach(MANIFEST, "application/spdx+json", data)
    assert "by none of the keys" in objection("**")
    repository.attach(MANIFEST, BUNDLE, data)
    assert objection("**") == ""


def test_a_simple_signature_that_refers_to_the_image(signer, repository, objection, make_statement) -> None:
    data = make_statement(MANIFEST, APP)
    repository.attach(MANIFEST, ARTIFACT, data, mediaType=STATEMENT, annotations={SIGNATURE: signer.sign(data)})
    assert objection() == ""


def test_both_kinds_are_looked_at(signer, stranger, repository, objection, make_envelope) -> None:
    repository.sign(stranger, MANIFEST, APP)
    repository.attach(MANIFEST, BUNDLE, make_envelope(signer, MANIFEST))
    assert objection("**") == ""


def test_a_registry_that_does_not_say_what_refers_denies(repository, objection, monkeypatch) -> None:
    def away(digest):
        raise Unavailable("the registry is away")

    monkeypatch.setattr(repository, "referrers", away)
    assert objection("**") == "its signature cannot be fetched: the registry is away"


def test_what_the_real_cosign_signed(repository, tmp_path) -> None:
    """A public image, signed by cosign with a key: the statement, the signature and the key as its makers published them
    (Freedom of the Press Foundation, on how Dangerzone's images are signed; Rekor entry 929816779)."""
    name = "ghcr.io/freedomofpress/dangerzone/v1"
    digest = "sha256:7396780b5862cf8b37527854a2a2331e5c746b6a71aa1f424258c3bfaf3a1bd7"
    signature = "MEQCIAQScnT03MVfmxjYyW5qAmvQ6TSoukPuw0HmSVlMBwYEAiAzGb76cvDb4CHJ+H6tD00bW1Sh1CK6opaRmI2ist4p2A=="
    key = tmp_path / "cosign.pub"
    key.write_text(
        "-----BEGIN PUBLIC KEY-----\n"
        "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE3CUlnwh825Z5wQAJV6TekEi6bCK2\n"
        "YvAg7A+aeerM5hvc4CCCJFBae5AjnsjGHv4V/3xzssck6e51W+b0jU4qVw==\n"
        "-----END PUBLIC KEY-----\n"
    )
    statement = (
        f'{{"critical":{{"identity":{{"docker-reference":"{name}"}},"image":{{"docker-manifest-digest":"{digest}"}},'
        '"type":"cosign container image signature"},"optional":null}'
    ).encode()
    assert len(statement) == 252
    plugin = AdmissionPolicy()
    plugin.configure(Settings.model_validate({"rules": [{"images": [f"{name}*"], "keys": [str(key)]}]}))
    repository.add(digest, statement, signature)
    assert plugin.admit_image(f"{name}:latest", digest, "", repository) is None
    assert "not for" in plugin.admit_image(f"{name}0:latest", digest, "", repository).reason
    repository.manifests.clear()
    repository.add(digest, statement.replace(b"null", b"true"), signature)
    assert "by none of the keys" in plugin.admit_image(f"{name}:latest", digest, "", repository).reason
