"""The registry protocol without its HTTP: what every driver that speaks it has to know (OCI distribution-spec; for tokens,
distribution's token specification), and the words in which dockerd says what a registry refused, since clients know them.

A driver brings the transport: connections, TLS, redirects, time limits.
"""

from __future__ import annotations

import base64
import email.utils
import json
import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from wharfie.spi.driver import FileDescriptor
from wharfie.spi.errors import Cancelled, Forbidden, InvalidArgument, NotFound, Unauthorized, Unavailable, WharfieError
from wharfie.spi.registry import Credentials, Descriptor, Reference

HUB: Final = "registry-1.docker.io"
"""Docker Hub's server, which users do not write."""
INDEX: Final = "application/vnd.oci.image.index.v1+json"
ACCEPT: Final = ", ".join(
    (
        INDEX,
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
"""The `Accept` of a request for a manifest."""
ERROR_LIMIT: Final = 64 * 1024
"""Bytes of an error that are worth reading."""
TOKEN_LIMIT: Final = 1 << 20
PAGE_LIMIT: Final = 16 << 20
PAGES_LIMIT: Final = 1000
"""Of one list: its pages, and the bytes of each."""

_RETRY_LIMIT: Final = 3600.0
_NEXT: Final = re.compile(r'<([^>]*)>\s*;[^,]*rel="?next"?')
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-")
_CHALLENGE: Final = re.compile(r"(?:^|,)\s*(Basic|Bearer)\s+", re.IGNORECASE)
_PARAMETER: Final = re.compile(r'([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


class Headers(Protocol):
    """Of an answer, by names in any case, as every HTTP library has them."""

    def get(self, name: str, default: str, /) -> str: ...


# Names


def familiar(ref: Reference) -> str:
    """The image's name as users write it."""
    return familiar_repository(ref) + (f"@{ref.digest}" if ref.digest else f":{ref.tag}" if ref.tag else "")


def familiar_repository(ref: Reference) -> str:
    return ref.repository.removeprefix("library/") if ref.server == HUB else f"{ref.server}/{ref.repository}"


# Answers


def read_object(body: bytes, what: str) -> dict[str, Any]:
    """A JSON object. Errors: InvalidArgument naming `what`."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{what} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidArgument(f"{what} is not a JSON object")
    return document


def next_page(headers: Headers) -> str | None:
    """Where a list goes on, as the server says it; None at its end."""
    link = _NEXT.search(headers.get("Link", ""))
    return None if link is None else link[1]


def begin_of(status: int, headers: Headers) -> int:
    """Where in the blob the body begins: a server may send the whole blob though a part was asked for."""
    match = _CONTENT_RANGE.match(headers.get("Content-Range", "")) if status == 206 else None
    return int(match[1]) if match else 0


def referrer(row: Mapping[str, object]) -> Descriptor:
    """A line of a list of referrers. What is missing or of another type is empty."""
    size, annotations = row.get("size"), row.get("annotations")
    return Descriptor(
        media_type=str(row.get("mediaType") or ""),
        digest=str(row.get("digest") or ""),
        size=size if isinstance(size, int) else 0,
        artifact_type=str(row.get("artifactType") or ""),
        annotations={str(key): str(value) for key, value in annotations.items()} if isinstance(annotations, dict) else {},
    )


def write(out: FileDescriptor, data: memoryview) -> None:
    """All of it. Errors: Cancelled when the other end of a pipe is closed."""
    try:
        while data:
            data = data[os.write(out, data) :]
    except BrokenPipeError:
        raise Cancelled("nobody reads this blob any more") from None


# Refusals


def unavailable(message: str, *, retry_after: float | None = None) -> Unavailable:
    """`details["text"]` is the message as dockerd would answer it, whatever is put in front on the way."""
    return Unavailable(message, retry_after=retry_after, details={"text": message})


def said_error(body: bytes) -> tuple[str, str]:
    """Code and message of the first error (distribution-spec, "Error Codes"); empty when the body is something else."""
    try:
        errors = json.loads(body)["errors"]
        return str(errors[0]["code"]), str(errors[0].get("message") or "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return "", ""


def retry_after(headers: Headers) -> float | None:
    """Seconds or a date (RFC 9110, 10.2.3); an hour at most."""
    text = headers.get("Retry-After", "")
    if text.isdecimal():
        return min(float(text), _RETRY_LIMIT)
    try:
        return min(max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time()), _RETRY_LIMIT)
    except (ValueError, TypeError):
        return None


def refused(ref: Reference, status: int, reason: str, headers: Headers, body: bytes) -> WharfieError:
    """What the server's error is to the contract: for a manifest, a blob or a list. `reason`: the status in words."""
    code, message = said_error(body)
    said = f"{code.lower().replace('_', ' ')}: {message}" if code else f"{status} {reason}"
    if status == 429:
        text = f"toomanyrequests: {message or 'the registry asks to come back later'}"
        return unavailable(text, retry_after=retry_after(headers))
    if status >= 500:
        text = f"received unexpected HTTP status: {status} {reason}"
        return unavailable(text, retry_after=retry_after(headers))
    if code == "DENIED" or (status in (401, 403) and code not in ("UNAUTHORIZED", "")):
        why = "repository does not exist or may require 'docker login'"
        return NotFound(f"pull access denied for {familiar_repository(ref)}, {why}: {said}")
    if status == 401:
        return Unauthorized(said if code else "unauthorized: authentication required")
    if status == 403:
        return Forbidden(f"{familiar(ref)}: the registry refuses access: {said}")
    if code == "NAME_UNKNOWN":
        return NotFound(f"repository {familiar_repository(ref)} not found: {said}")
    if status == 404:
        return NotFound(f"manifest for {familiar(ref)} not found: {said if code else 'manifest unknown: ' + said}")
    return WharfieError(f"the registry {ref.server} does not answer for {familiar(ref)}: {said}")


# Authentication


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate that a server offers; `scheme` in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """Those that we know of a `WWW-Authenticate` (RFC 9110, 11.3), bearer first."""
    marks = list(_CHALLENGE.finditer(header))
    ends = [*(mark.start() for mark in marks), len(header)][1:]
    found = [
        Challenge(
            mark[1].lower(),
            {key.lower(): quoted or bare for key, quoted, bare in _PARAMETER.findall(header[mark.end() : end])},
        )
        for mark, end in zip(marks, ends, strict=True)
    ]
    return sorted(found, key=lambda challenge: challenge.scheme != "bearer")


def basic(credentials: Credentials) -> str:
    """The `Authorization` of basic authentication."""
    pair = f"{credentials.username}:{credentials.password}".encode()
    return "Basic " + base64.b64encode(pair).decode()


def read_token(body: bytes, realm: str) -> tuple[str, float]:
    """The token of a token server's answer, and its life in seconds. Errors: Unavailable, InvalidArgument (no JSON)."""
    document = read_object(body, f"the token of {realm}")
    token, life = document.get("token") or document.get("access_token"), document.get("expires_in")
    if not isinstance(token, str) or not token.isprintable() or not token.isascii():
        raise unavailable(f'Get "{realm}": the token server sent no token')
    return token, float(life) if isinstance(life, int | float) and life > 0 else Authorizations.LIFE


def read_identity_token(body: bytes) -> str:
    """What a token server gives at a login in place of the password; empty when there is none. Errors: InvalidArgument."""
    token = read_object(body, "the token").get("refresh_token")
    return token if isinstance(token, str) and token.isprintable() and token.isascii() else ""


Asker = tuple[str, str, Credentials | None]
"""Server, scope, and who asks: what was answered is of use to nobody else."""


class Authorizations:
    """What was answered to challenges, for as long as it holds. Thread-safe."""

    LIFE: Final = 60.0
    """Seconds of what does not say how long it holds (distribution, "Token Response Fields")."""
    _LONGEST: Final = 3600.0
    _EARLY: Final = 10.0
    """One counts as expired this many seconds before it is."""
    _KEPT: Final = 256

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Asker, tuple[str, float]] = {}

    def header(self, asker: Asker) -> str:
        """The `Authorization` to begin with; empty for none."""
        credentials = asker[2]
        if credentials is not None and credentials.registry_token:
            return f"Bearer {credentials.registry_token}"
        with self._lock:
            value, until = self._known.get(asker, ("", 0.0))
        return value if until > time.monotonic() else ""

    def remember(self, asker: Asker, value: str, life: float) -> str:
        """`value` itself; it holds for `life` seconds."""
        with self._lock:
            while len(self._known) >= self._KEPT:
                del self._known[next(iter(self._known))]
            self._known[asker] = (value, time.monotonic() + min(life, self._LONGEST) - self._EARLY)
        return value

    def forget(self, asker: Asker) -> None:
        """It was refused."""
        with self._lock:
            self._known.pop(asker, None)
