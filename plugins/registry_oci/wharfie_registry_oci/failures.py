"""What went wrong between us and a server, in the words that dockerd (Go's net/http) uses, because clients know them."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from wharfie.spi import distribution
from wharfie.spi.distribution import familiar_repository, retry_after, said_error, unavailable
from wharfie.spi.errors import Forbidden, NotFound, Unauthorized, Unavailable, WharfieError
from wharfie.spi.registry import Reference


class NoAnswer(Unavailable):
    """Nothing came back from the server, or it broke off."""


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
    return distribution.refused(ref, response.status_code, response.reason_phrase, response.headers, body)


def push_refused(ref: Reference, response: httpx.Response, body: bytes) -> WharfieError:
    """The server answered with an error to a request of a push."""
    code, message = said_error(body)
    status = response.status_code
    said = f"{code.lower().replace('_', ' ')}: {message}" if code else ""
    if status == 429:
        text = f"toomanyrequests: {message or 'the registry asks to come back later'}"
        return unavailable(text, retry_after=retry_after(response.headers))
    if status >= 500:
        text = said or f"received unexpected HTTP status: {status} {response.reason_phrase}"
        return unavailable(text, retry_after=retry_after(response.headers))
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
