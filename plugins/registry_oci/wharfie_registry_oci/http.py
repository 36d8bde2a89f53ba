"""One request: to the right client, over redirects, within time limits. Bodies are streamed and never decoded."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import httpx

from wharfie.spi.distribution import ERROR_LIMIT, unavailable
from wharfie.spi.errors import InvalidArgument, WharfieError
from wharfie_registry_oci.endpoints import Endpoints
from wharfie_registry_oci.failures import unreachable
from wharfie_registry_oci.settings import Settings

_HEADERS = {"User-Agent": "wharfie/0.1", "Accept-Encoding": "identity"}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SAME_METHOD = frozenset({307, 308})
_SAFE = frozenset({"GET", "HEAD"})


class NoTls(Exception):  # a fact that the caller acts on
    """The server does not speak TLS, or nobody listens there. `cause` is the error if plain HTTP is not to be tried."""

    def __init__(self, cause: WharfieError) -> None:
        super().__init__(cause.message)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Body:
    """What is sent. `pieces` begins anew at each call; the length is in the request's headers."""

    pieces: Callable[[], Iterator[bytes]]


class Http:
    """Clients by host, since each host may have certificates of its own. Thread-safe."""

    def __init__(self, settings: Settings, endpoints: Endpoints) -> None:
        self._settings = settings
        self._endpoints = endpoints
        self._lock = threading.Lock()
        self._clients: dict[str, httpx.Client] = {}
        self._timeout = httpx.Timeout(settings.read_timeout, connect=settings.connect_timeout)

    def close(self) -> None:
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def _client(self, host: str) -> httpx.Client:
        with self._lock:
            client = self._clients.get(host)
            if client is None:
                try:
                    context = self._endpoints.tls(host)
                except (OSError, ssl.SSLError) as error:
                    folder = self._settings.certificates / host
                    raise InvalidArgument(f"the certificates in {folder} cannot be used: {error}") from error
                client = httpx.Client(verify=context, timeout=self._timeout, headers=_HEADERS, follow_redirects=False)
                self._clients[host] = client
            return client

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        authorization: str = "",
        body: Body | None = None,
        shown: str = "",
    ) -> Iterator[httpx.Response]:
        """The answer behind all redirects, its body unread. `authorization` goes to the host of `url` and to no other.

        A request that changes something is only redirected as it is, never turned into another method. `shown`: the
        address for messages. Errors: Unavailable; NoTls when the first connection fails.
        """
        home = origin(url)
        target = url
        redirects = _REDIRECTS if method in _SAFE else _SAME_METHOD
        for _ in range(self._settings.max_redirects + 1):
            sent = dict(headers)
            if authorization and origin(target) == home:
                sent["Authorization"] = authorization
            response = self._send(method, target, sent, shown or url, content=body)
            try:
                if response.status_code not in redirects or "Location" not in response.headers:
                    yield response
                    return
                target = urljoin(target, response.headers["Location"])
            finally:
                response.close()
            if not self._endpoints.allows(target):
                where = f"{urlsplit(target).scheme}://{urlsplit(target).netloc}"
                raise unavailable(
                    f'{method.capitalize()} "{url}": redirected to {where}, which is not allowed: no TLS there'
                )
        limit = self._settings.max_redirects
        raise unavailable(f'{method.capitalize()} "{url}": stopped after {limit} redirects')

    @contextlib.contextmanager
    def post(self, url: str, form: Mapping[str, str]) -> Iterator[httpx.Response]:
        """Send a form that holds a secret: no redirect is followed. Errors: Unavailable, NoTls."""
        response = self._send("POST", url, {}, url, form=form)
        try:
            yield response
        finally:
            response.close()

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        shown: str,
        *,
        form: Mapping[str, str] | None = None,
        content: Body | None = None,
    ) -> httpx.Response:
        try:
            client = self._client(urlsplit(url).netloc)
            pieces = content.pieces() if content is not None else None
            return client.send(client.build_request(method, url, headers=headers, data=form, content=pieces), stream=True)
        except httpx.InvalidURL as error:
            raise unavailable(f"{url!r} is not an address: {error}") from error
        except httpx.ConnectError as error:
            raise NoTls(unreachable(error, "Get", shown)) from error
        except (httpx.HTTPError, OSError) as error:
            raise unreachable(error, method, shown) from error


def read_limited(response: httpx.Response, limit: int, what: str) -> bytes:
    """The body, but never more than `limit` bytes. Errors: InvalidArgument (longer), Unavailable (broken off)."""
    body = bytearray()
    try:
        for piece in response.iter_raw():
            body += piece
            if len(body) > limit:
                raise InvalidArgument(f"{what} is longer than {limit} bytes")
    except (httpx.HTTPError, OSError) as error:
        raise unreachable(error, "Get", str(response.request.url)) from error
    return bytes(body)


def error_body(response: httpx.Response) -> bytes:
    """What the server says about an error, as far as it is short."""
    try:
        return read_limited(response, ERROR_LIMIT, "the error")
    except WharfieError:
        return b""


def origin(url: str) -> tuple[str, str]:
    """Scheme and host: who gets credentials."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()
