"""Signatures beside images: cosign's key-based formats, "simple signing" and bundles (see `bundles`).

The signature of a manifest with the digest sha256:HEX is an image of the same repository with the tag `sha256-HEX.sig`, or
an artifact that refers to it. Each of its layers is one signed statement, a JSON document that names the digest; an
annotation of the layer has the signature over the layer's bytes: ECDSA on P-256 over their SHA-256, DER, in base64.
(sigstore/cosign, specs/SIGNATURE_SPEC.md; containers/image, docs/containers-signature.5.md for the document.)

Whoever can write to the registry can put anything there, so nothing is believed before it is verified, and all is bounded.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from wharfie.spi.errors import InvalidArgument, NotFound
from wharfie.spi.hooks import Repository
from wharfie.spi.registry import Descriptor
from wharfie_admission_policy import bundles

STATEMENT = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
_TYPES = ("cosign container image signature", bundles.SIGN)
_ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"
"""The artifact type of the same that refers to the image, as `cosign sign --registry-referrers-mode oci-1-1` makes it."""
_STATEMENT_LIMIT = 64 * 1024
_STATEMENTS = 64
"""Statements, and artifacts, that are looked at: who may push could add any number."""
_KEY_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Statement:
    """What somebody signed: this digest, under this name. Its signature is one by a key."""

    digest: str
    name: str  # the repository as the signer called it; empty: none, as in a bundle


def tag_of(digest: str) -> str:
    """Where the signatures of a manifest are."""
    return digest.replace(":", "-") + ".sig"


def read_keys(paths: Sequence[Path]) -> list[ec.EllipticCurvePublicKey]:
    """The public keys in these files (PEM). Errors: InvalidArgument naming the file."""
    return [_read_key(path) for path in paths]


def _read_key(path: Path) -> ec.EllipticCurvePublicKey:
    try:
        with path.open("rb") as file:
            key = load_pem_public_key(file.read(_KEY_LIMIT))
    except OSError as error:
        raise InvalidArgument(f"the key {path} cannot be read: {error.strerror}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidArgument(
            f"{path} has no public key in PEM, as `cosign generate-key-pair` writes it: {error}"
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidArgument(f"{path} has no ECDSA key on the curve P-256, the only kind that is supported")
    return key


def signed_statements(
    repository: Repository, digest: str, keys: Sequence[ec.EllipticCurvePublicKey]
) -> Iterator[Statement]:
    """Statements about `digest` that one of the keys signed.

    Errors: NotFound (the manifest has no signatures), InvalidArgument (what is there is no signature), the registry's.
    """
    found = False
    with contextlib.suppress(NotFound):
        manifest = repository.manifest(tag_of(digest))
        found = True
        yield from _simple(repository, manifest.data, digest, keys)
    for referrer in _referrers(repository, digest):
        found = True
        try:
            data = repository.manifest(referrer.digest).data
            if referrer.artifact_type == _ARTIFACT:
                yield from _simple(repository, data, digest, keys)
            elif bundles.signs(repository.blob(_bundle(data)), digest, keys):
                yield Statement(digest, "")
        except (NotFound, InvalidArgument):
            continue  # one that is not there, or is none, takes nothing from the others
    if not found:
        raise NotFound(f"there is no signature of {digest}")


def _referrers(repository: Repository, digest: str) -> list[Descriptor]:
    """Artifacts that say that they are signatures."""
    found = repository.referrers(digest)
    return [each for each in found if each.artifact_type == _ARTIFACT or each.artifact_type.startswith(bundles.TYPE)][
        :_STATEMENTS
    ]


def _bundle(data: bytes) -> Descriptor:
    """The blob with the bundle. Errors: InvalidArgument."""
    layers = _layers(data)
    layer = layers[0] if layers and isinstance(layers[0], dict) else {}
    digest, size = layer.get("digest"), layer.get("size")
    if not isinstance(digest, str) or not isinstance(size, int) or not 0 < size <= bundles.LIMIT:
        raise InvalidArgument("the artifact has no bundle")
    return Descriptor(media_type=bundles.TYPE, digest=digest, size=size)


def _simple(
    repository: Repository, manifest: bytes, digest: str, keys: Sequence[ec.EllipticCurvePublicKey]
) -> Iterator[Statement]:
    for layer in _layers(manifest):
        signature = _signature(layer)
        descriptor = _statement(layer)
        if signature is None or descriptor is None:
            continue
        try:
            data = repository.blob(descriptor)
        except (NotFound, InvalidArgument):
            continue  # one statement that is not there, or is not what was announced, takes nothing from the others
        if any(_verifies(key, signature, data) for key in keys):
            statement = _read_statement(data)
            if statement is not None and statement.digest == digest:
                yield statement


def _layers(data: bytes) -> list[Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the manifest of the signatures is not valid JSON: {error}") from None
    layers = document.get("layers") if isinstance(document, dict) else None
    if not isinstance(layers, list):
        raise InvalidArgument("the manifest of the signatures has no layers")
    return layers[:_STATEMENTS]


def _signature(layer: Any) -> bytes | None:
    annotations = layer.get("annotations") if isinstance(layer, dict) else None
    text = annotations.get(SIGNATURE) if isinstance(annotations, dict) else None
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except (binascii.Error, ValueError):
        return None


def _statement(layer: dict[str, Any]) -> Descriptor | None:
    digest, size = layer.get("digest"), layer.get("size")
    if layer.get("mediaType") != STATEMENT or not isinstance(digest, str) or not isinstance(size, int):
        return None
    if not 0 < size <= _STATEMENT_LIMIT:
        return None
    return Descriptor(media_type=STATEMENT, digest=digest, size=size)


def _verifies(key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> bool:
    try:
        key.verify(signature, data, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _read_statement(data: bytes) -> Statement | None:
    """None: the key signed something else than an image."""
    try:
        critical = json.loads(data)["critical"]
        if critical["type"] not in _TYPES:
            return None
        digest, name = critical["image"]["docker-manifest-digest"], critical["identity"]["docker-reference"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    return Statement(digest, name) if isinstance(digest, str) and isinstance(name, str) else None
