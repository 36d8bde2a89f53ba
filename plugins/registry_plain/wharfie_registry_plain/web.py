"""One request: redirects, time limits, and to whom credentials may go. Bodies are streamed and never decoded."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator, Mapping
from http.client import HTTPException, HTTPResponse
from urllib.error import URLError
from urllib.parse import urljoin, urlsplit
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request

from wharfie.spi.call import progress
from wharfie.spi.distribution import unavailable
from wharfie.spi.errors import InvalidArgument, Unavailable
from wharfie_registry_plain.settings import Settings

_PIECE = 32 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REDIRECTS_LIMIT = 5


class NoAnswer(Unavailable):
    """Nothing came back: nobody listens there, or they do not speak this protocol."""


class Web:
    """GET and POST over one connection each. Thread-safe: it remembers nothing."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        careless = ssl.create_default_context()
        careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE
        self._careful = _opener(ssl.create_default_context())
        self._careless = _opener(careless)

    def allows(self, source: str, target: str) -> bool:
        """Whether the server at `source` may send us to `target`: over TLS, or plainly where that is nothing worse."""
        try:
            parts = urlsplit(target)
        except ValueError:
            return False
        plain = parts.scheme == "http" and urlsplit(source).scheme == "http" and self._settings.insecure(parts.netloc)
        return bool(parts.hostname) and (parts.scheme == "https" or plain)

    @contextlib.contextmanager
    def get(self, url: str, headers: Mapping[str, str], authorization: str = "") -> Iterator[HTTPResponse]:
        """The answer behind all redirects. `authorization` goes to the origin of `url` alone. Errors: Unavailable."""
        target = url
        for _ in range(_REDIRECTS_LIMIT + 1):
            own = {"Authorization": authorization} if authorization and origin(target) == origin(url) else {}
            with self._send(Request(target, headers={**headers, **own})) as response:
                if response.status not in _REDIRECTS or "Location" not in response.headers:
                    yield response
                    return
                source, location = target, response.headers["Location"]
            try:
                target = urljoin(source, location)
            except ValueError:
                target = location
            if not self.allows(source, target):
                raise unavailable(f'Get "{url}": redirected to {target!r}, which is not allowed: no TLS there')
        raise unavailable(f'Get "{url}": stopped after {_REDIRECTS_LIMIT} redirects')

    @contextlib.contextmanager
    def post(self, url: str, form: bytes) -> Iterator[HTTPResponse]:
        """A form holds a secret, so no redirect is followed. Errors: Unavailable."""
        with self._send(Request(url, data=form)) as response:
            yield response

    def _send(self, request: Request) -> HTTPResponse:
        url = request.full_url
        request.add_header("User-Agent", "wharfie/0.1")
        request.add_header("Accept-Encoding", "identity")
        opener = self._careless if self._settings.insecure(urlsplit(url).netloc) else self._careful
        try:
            response: HTTPResponse = opener.open(request, timeout=self._settings.timeout)
            return response
        except (OSError, HTTPException, ValueError) as error:
            text = broken(url, error).message
            raise NoAnswer(text, details={"text": text}) from error


def _opener(context: ssl.SSLContext) -> OpenerDirector:
    """Without the handlers that follow redirects, make errors of answers, or open files and FTP."""
    opener = OpenerDirector()
    for handler in (ProxyHandler(), HTTPHandler(), HTTPSHandler(context=context)):
        opener.add_handler(handler)
    opener.addheaders = []
    return opener


def origin(url: str) -> tuple[str, str]:
    """Who gets credentials."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def pieces(response: HTTPResponse, url: str) -> Iterator[bytes]:
    """The body as it comes; whether it is whole is not told. Errors: Unavailable."""
    try:
        while piece := response.read(_PIECE):
            progress()
            yield piece
    except (OSError, HTTPException, ValueError) as error:
        raise broken(url, error) from error


def read(response: HTTPResponse, url: str, limit: int, what: str) -> bytes:
    """The whole body. Errors: InvalidArgument (longer than `limit` bytes), Unavailable (it broke off)."""
    body = bytearray()
    for piece in pieces(response, url):
        body += piece
        if len(body) > limit:
            raise InvalidArgument(f"{what} is longer than {limit} bytes")
    if response.length:
        raise unavailable(f'Get "{url}": unexpected EOF: {response.length} bytes of {what} are missing')
    return bytes(body)


def broken(url: str, error: Exception) -> Unavailable:
    """In the words of dockerd, which clients know."""
    cause = error.reason if isinstance(error, URLError) else error
    parts = urlsplit(url)
    where = parts.netloc
    if not where.rpartition(":")[2].isdecimal():
        where += ":443" if parts.scheme == "https" else ":80"
    match cause:
        case socket.gaierror():
            text = f"dial tcp: lookup {parts.hostname}: no such host"
        case ConnectionRefusedError():
            text = f"dial tcp {where}: connect: connection refused"
        case TimeoutError():
            text = f"dial tcp {where}: i/o timeout"
        case ssl.SSLCertVerificationError():
            text = f"tls: failed to verify certificate: x509: {cause.verify_message}"
        case ssl.SSLError():
            text = f"tls: {cause.reason or cause}"
        case HTTPException() | ConnectionError():
            text = f"unexpected EOF: {cause or type(cause).__name__}"
        case ValueError():
            text = "the request cannot be sent: an address or a header has characters that HTTP does not know"
        case _:
            text = str(cause)
    return unavailable(f'Get "{url}": {text}')
