"""What went wrong between us and a server, in the words that dockerd (Go's net/http) uses, because clients know them."""

from __future__ import annotations

import email.utils
import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from wharfie.spi.errors import Forbidden, NotFound, Unauthorized, Unavailable, WharfieError
from wharfie.spi.registry import Reference
from wharfie_registry_oci.hosts import HUB

_RETRY_LIMIT = 3600.0


class NoAnswer(Unavailable):
    """Nothing came back from the server, or it broke off."""


def unavailable(message: str, *, retry_after: float | None = None) -> Unavailable:
    """`details["text"]` is the message as dockerd would answer it, whatever is put in front on the way."""
    return Unavailable(message, retry_after=retry_after, details={"text": message})


def familiar(ref: Reference) -> str:
    """The image's name as users write it."""
    return familiar_repository(ref) + (f"@{ref.digest}" if ref.digest else f":{ref.tag}" if ref.tag else "")


def familiar_repository(ref: Reference) -> str:
    if ref.server == HUB:
        return ref.repository.removeprefix("library/")
    return f"{ref.server}/{ref.repository}"


def unreachable(error: httpx.HTTPError | httpx.StreamError | OSError, method: str, url: str) -> NoAnswer:
    """No answer came, or it broke off."""
    text = f'{method.capitalize()} "{url}": {_reason(error, url)}'
    return NoAnswer(text, details={"text": text})


def _reason(error: BaseException, url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    for cause in _causes(error):
        match cause:
            case socket.gaierror():
                return f"dial tcp: lookup {host}{_name_server()}: no such host"
            case ConnectionRefusedError():
                return f"dial tcp {where}: connect: connection refused"
            case ssl.SSLCertVerificationError():
                return f"tls: failed to verify certificate: x509: {_certificate(cause)}"
            case ssl.SSLError() if "WRONG_VERSION_NUMBER" in str(cause) or "HTTP_REQUEST" in str(cause):
                return "http: server gave HTTP response to HTTPS client"
            case ssl.SSLError():
                return f"tls: {cause.reason or cause}"
            case httpx.ConnectTimeout():
                return f"dial tcp {where}: i/o timeout"
            case httpx.TimeoutException():
                return "net/http: timeout awaiting response: the server sent nothing for too long"
            case httpx.RemoteProtocolError() | ConnectionResetError() | EOFError():
                return f"unexpected EOF: the server closed the connection ({cause})"
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.strerror:
            return f"dial tcp {where}: connect: {cause.strerror.lower()}"
    return str(error) or type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The innermost first: it says most."""
    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in chain:
        chain.append(at)
        at = at.__cause__ or at.__context__
    yield from reversed(chain)


def _name_server() -> str:
    try:
        for line in Path("/etc/resolv.conf").read_text().splitlines():
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver":
                return f" on {words[1]}:53"
    except OSError:
        pass
    return ""


def _certificate(error: ssl.SSLCertVerificationError) -> str:
    text = error.verify_message
    if "self-signed" in text or "self signed" in text or "unable to get" in text:
        return "certificate signed by unknown authority"
    if "expired" in text or "not yet valid" in text:
        return "certificate has expired or is not yet valid"
    return text


def refused(ref: Reference, response: httpx.Response, body: bytes) -> WharfieError:
    """The server answered with an error: for a manifest, a blob or a list of tags."""
    code, message = _error(body)
    status = response.status_code
    said = f"{code.lower().replace('_', ' ')}: {message}" if code else f"{status} {response.reason_phrase}"
    if status == 429:
        text = f"toomanyrequests: {message or 'the registry asks to come back later'}"
        return unavailable(text, retry_after=_retry_after(response))
    if status >= 500:
        text = f"received unexpected HTTP status: {status} {response.reason_phrase}"
        return unavailable(text, retry_after=_retry_after(response))
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


def push_refused(ref: Reference, response: httpx.Response, body: bytes) -> WharfieError:
    """The server answered with an error to a request of a push."""
    code, message = _error(body)
    status = response.status_code
    said = f"{code.lower().replace('_', ' ')}: {message}" if code else ""
    if status == 429:
        text = f"toomanyrequests: {message or 'the registry asks to come back later'}"
        return unavailable(text, retry_after=_retry_after(response))
    if status >= 500:
        text = said or f"received unexpected HTTP status: {status} {response.reason_phrase}"
        return unavailable(text, retry_after=_retry_after(response))
    lacking = 'error="insufficient_scope"' in response.headers.get("WWW-Authenticate", "")
    if code == "DENIED" or status == 403 or lacking:
        return Forbidden(said if code == "DENIED" else "denied: requested access to the resource is denied")
    if status == 401:
        return Unauthorized(said or "unauthorized: authentication required")
    if status == 404:
        return NotFound(said or f"the registry {ref.server} does not know the repository {familiar_repository(ref)}")
    if status == 416:  # a stream that does not begin where the upload is
        return unavailable(said or f"the registry {ref.server} has another part of the upload than was said")
    return WharfieError(said or f"unexpected status from the registry {ref.server}: {status} {response.reason_phrase}")


def _error(body: bytes) -> tuple[str, str]:
    """Code and message of the first error (distribution-spec, "Error Codes"); empty when the body is something else."""
    try:
        errors = json.loads(body)["errors"]
        return str(errors[0]["code"]), str(errors[0].get("message") or "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return "", ""


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds or a date (RFC 9110, 10.2.3)."""
    text = response.headers.get("Retry-After", "")
    if text.isdecimal():
        return min(float(text), _RETRY_LIMIT)
    try:
        return min(max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time()), _RETRY_LIMIT)
    except (ValueError, TypeError):
        return None
