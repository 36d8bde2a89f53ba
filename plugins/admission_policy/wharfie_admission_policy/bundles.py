"""Sigstore bundles: what `cosign sign --key` attaches since its version 3.

A bundle is a JSON document in an artifact that refers to the signed manifest (sigstore/cosign, specs/BUNDLE_SPEC.md). It
holds a DSSE envelope with an in-toto statement that names the digest, or a plain signature of the manifest (sigstore/
protobuf-specs, sigstore_bundle.proto; secure-systems-lab/dsse, protocol.md). Which repository it was made for is not in it.

Only the signature by a key is looked at: not certificates, not the transparency log's entry, not time stamps.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

TYPE = "application/vnd.dev.sigstore.bundle"
"""What the artifact type begins with; the version follows."""
LIMIT = 256 * 1024
SIGN = "https://sigstore.dev/cosign/sign/v1"
"""The predicate of an image's signature. Others, such as an SBOM's, are not an approval."""
_STATEMENT = "application/vnd.in-toto+json"

Keys = Sequence[ec.EllipticCurvePublicKey]


def signs(data: bytes, digest: str, keys: Keys) -> bool:
    """Whether a bundle has a signature by one of the keys for the manifest with this digest."""
    try:
        bundle = json.loads(data)
        if "dsseEnvelope" in bundle:
            return _envelope_signs(bundle["dsseEnvelope"], digest, keys)
        signature = _decoded(bundle["messageSignature"]["signature"])
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return False
    hashed = ec.ECDSA(Prehashed(SHA256()))
    return any(_verifies(key, signature, bytes.fromhex(digest.removeprefix("sha256:")), hashed) for key in keys)


def _envelope_signs(envelope: dict[str, Any], digest: str, keys: Keys) -> bool:
    kind, payload = envelope["payloadType"], _decoded(envelope["payload"])
    signatures = [_decoded(each["sig"]) for each in envelope["signatures"]]
    if kind != _STATEMENT:
        return False
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    if not any(_verifies(key, each, signed, ec.ECDSA(SHA256())) for key in keys for each in signatures):
        return False
    statement = json.loads(payload)
    subjects = [subject["digest"].get("sha256") for subject in statement["subject"]]
    return statement["predicateType"] == SIGN and digest.removeprefix("sha256:") in subjects


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _verifies(key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes, algorithm: ec.ECDSA) -> bool:
    try:
        key.verify(signature, data, algorithm)
    except InvalidSignature:
        return False
    return True
