"""The driver: requests of the OCI distribution protocol (distribution-spec, "Endpoints")."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar
from urllib.parse import urlencode, urljoin, urlsplit

import httpx

from wharfie.spi.call import progress
from wharfie.spi.driver import Context, FileDescriptor, Strings
from wharfie.spi.errors import Cancelled, Forbidden, InvalidArgument, NotFound, Unauthorized, Unavailable, WharfieError
from wharfie.spi.registry import (
    MANIFEST_LIMIT,
    Credentials,
    Descriptor,
    LoginResult,
    Manifest,
    Reference,
    RegistryCapability,
    RegistryDriver,
)
from wharfie_registry_oci.auth import Authority, Challenge, basic, parse_challenges
from wharfie_registry_oci.endpoints import Endpoint, Endpoints
from wharfie_registry_oci.failures import familiar, refused, unavailable, unreachable
from wharfie_registry_oci.http import Http, NoTls, error_body, read_limited
from wharfie_registry_oci.settings import Settings

_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_TOKEN_LIMIT = 1 << 20
_TAGS_LIMIT = 16 << 20
_PAGES = 1000
_NEXT = re.compile(r'<([^>]*)>\s*;[^,]*rel="?next"?')
_CONTENT_RANGE = re.compile(r"bytes (\d+)-")


class OciDriver(RegistryDriver):
    """Any registry that speaks the OCI distribution protocol: Docker Hub, distribution, Harbor, cloud registries."""

    name: ClassVar[str] = "oci"
    spi: ClassVar[str] = "1.0"
    settings: ClassVar[str] = "wharfie_registry_oci.settings:Settings"

    def __init__(self, context: Context, settings: Settings) -> None:
        self._settings = settings
        self._endpoints = Endpoints(settings)
        self._http = Http(settings, self._endpoints)
        self._authority = Authority(self)

    def capabilities(self) -> frozenset[RegistryCapability]:
        return frozenset({RegistryCapability.CATALOG, RegistryCapability.RANGES})

    def close(self) -> None:
        self._http.close()

    def describe_server(self, server: str) -> Strings:
        return {"endpoints": " ".join(endpoint.url for endpoint in self._endpoints.of(server))}

    # The contract's requests

    def resolve(self, ref: Reference, auth: Credentials | None) -> Manifest:
        path = f"/v2/{ref.repository}/manifests/{ref.digest or ref.tag}"
        with self._get(ref, path, {"Accept": _ACCEPT}, auth) as response:
            data = read_limited(response, MANIFEST_LIMIT, f"the manifest of {familiar(ref)}")
            media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        return Manifest(media_type=media_type, digest="sha256:" + hashlib.sha256(data).hexdigest(), data=data)

    def fetch(
        self, ref: Reference, blob: Descriptor, out: FileDescriptor, *, offset: int, auth: Credentials | None
    ) -> None:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if offset >= blob.size:
            return
        with self._get(ref, f"/v2/{ref.repository}/blobs/{blob.digest}", headers, auth) as response:
            skip = offset - _start(response)
            if skip < 0:
                raise unavailable(f"the registry {ref.server} sent another part of blob {blob.digest} than was asked for")
            _copy(response, out, skip=skip, count=blob.size - offset)

    def tags(self, ref: Reference, auth: Credentials | None) -> Sequence[str]:
        path = f"/v2/{ref.repository}/tags/list"
        found: list[str] = []
        for _ in range(_PAGES):
            with self._get(ref, path, {}, auth) as response:
                body = read_limited(response, _TAGS_LIMIT, f"the list of tags of {familiar(ref)}")
                link = _NEXT.search(response.headers.get("Link", ""))
            page = _object(body).get("tags")
            found += [tag for tag in page if isinstance(tag, str)] if isinstance(page, list) else []
            if link is None:
                return found
            parts = urlsplit(urljoin(path, link[1]))
            path = f"{parts.path}?{parts.query}"
        raise unavailable(f"the list of tags of {familiar(ref)} does not end")

    def login(self, server: str, auth: Credentials) -> LoginResult:
        last: WharfieError | None = None
        for endpoint in [endpoint for endpoint in self._endpoints.of(server) if endpoint.trusted]:
            url = f"{endpoint.url}/v2/"
            try:
                return self._login(endpoint, url, auth)
            except NoTls as error:
                last = error.cause
        raise last or unavailable(f"the registry {server} has no endpoint")

    def _login(self, endpoint: Endpoint, url: str, auth: Credentials) -> LoginResult:
        with self._http.stream("GET", url, headers={}) as response:
            self._endpoints.answered(endpoint)
            if response.status_code == 200:
                return LoginResult(status="Login Succeeded")
            if response.status_code != 401:
                raise unavailable(f'Get "{url}": {response.status_code} {response.reason_phrase}')
            challenges = parse_challenges(response.headers.get("WWW-Authenticate", ""))
        offer = challenges[0] if challenges else Challenge("basic", {})
        token = basic(auth) if offer.scheme == "basic" else "Bearer " + self.token(offer, "", auth)[0]
        with self._http.stream("GET", url, headers={}, authorization=token) as response:
            if response.status_code == 200:
                return LoginResult(status="Login Succeeded")
            said = f"{response.status_code} {response.reason_phrase}"
        raise Unauthorized(f"login attempt to {url} failed with status: {said}")

    # Tokens

    def token(self, challenge: Challenge, scope: str, credentials: Credentials | None) -> tuple[str, float]:
        """A bearer token and its life in seconds, from the server that `challenge` names."""
        realm = challenge.parameters.get("realm", "")
        if not self._endpoints.allows(realm):
            raise unavailable(f"the registry names a token server that cannot be asked without TLS: {realm!r}")
        query = {
            key: value for key, value in (("service", challenge.parameters.get("service", "")), ("scope", scope)) if value
        }
        try:
            if credentials is not None and credentials.identity_token:
                status, body = self._refresh(realm, query, credentials.identity_token)
            else:
                status, body = self._ask(realm, query, credentials)
        except NoTls as error:
            raise error.cause from None
        if status in (401, 403):
            raise Unauthorized(f'Get "{realm}": unauthorized: incorrect username or password')
        if status != 200:
            raise unavailable(f'Get "{realm}": the token server answered {status}')
        document = _object(body)
        token = document.get("token") or document.get("access_token")
        life = document.get("expires_in")
        if not isinstance(token, str) or not token.isprintable():
            raise unavailable(f'Get "{realm}": the token server sent no token')
        return token, float(life) if isinstance(life, int | float) else 0.0

    def _ask(self, realm: str, query: Mapping[str, str], credentials: Credentials | None) -> tuple[int, bytes]:
        named = credentials is not None and bool(credentials.username)
        if credentials is not None and named:
            query = {**query, "account": credentials.username}
        url = realm + ("&" if urlsplit(realm).query else "?") + urlencode(query)
        authorization = basic(credentials) if credentials is not None and named else ""
        with self._http.stream("GET", url, headers={}, authorization=authorization, shown=realm) as response:
            return response.status_code, read_limited(response, _TOKEN_LIMIT, f"the token of {realm}")

    def _refresh(self, realm: str, query: Mapping[str, str], identity_token: str) -> tuple[int, bytes]:
        form = {**query, "grant_type": "refresh_token", "refresh_token": identity_token, "client_id": "wharfie"}
        with self._http.post(realm, form) as response:
            return response.status_code, read_limited(response, _TOKEN_LIMIT, f"the token of {realm}")

    # One request of the contract

    @contextlib.contextmanager
    def _get(
        self, ref: Reference, path: str, headers: Mapping[str, str], auth: Credentials | None
    ) -> Iterator[httpx.Response]:
        """A good answer: from the first endpoint that has one, authenticated as it asks for."""
        with contextlib.ExitStack() as stack:
            yield self._first_answer(stack, ref, path, headers, auth)

    def _first_answer(
        self, stack: contextlib.ExitStack, ref: Reference, path: str, headers: Mapping[str, str], auth: Credentials | None
    ) -> httpx.Response:
        failure: WharfieError | None = None
        for endpoint in self._endpoints.of(ref.server):
            try:
                response = self._authenticated(stack, endpoint, ref, path, headers, auth if endpoint.trusted else None)
            except NoTls as error:
                failure = error.cause
                continue
            except (Unavailable, Unauthorized, Forbidden, NotFound):
                if endpoint.trusted:
                    raise
                continue  # a mirror that does not have it
            self._endpoints.answered(endpoint)
            return response
        self._endpoints.forget(ref.server)
        raise failure or unavailable(f"the registry {ref.server} has no endpoint")

    def _authenticated(
        self,
        stack: contextlib.ExitStack,
        endpoint: Endpoint,
        ref: Reference,
        path: str,
        headers: Mapping[str, str],
        auth: Credentials | None,
    ) -> httpx.Response:
        scope = f"repository:{ref.repository}:pull"
        authorization = self._authority.header(endpoint.host, scope, auth)
        url = endpoint.url + path
        for attempt in range(2):
            inner = stack.enter_context(contextlib.ExitStack())
            response = inner.enter_context(
                self._http.stream("GET", url, headers=headers, authorization=authorization, shown=f"{endpoint.url}/v2/")
            )
            if response.status_code in (200, 206):
                return response
            body = error_body(response)
            inner.close()
            if response.status_code != 401 or attempt or response.url.netloc != httpx.URL(url).netloc:
                break
            self._authority.forget(endpoint.host, scope, auth)
            challenge = response.headers.get("WWW-Authenticate", "")
            authorization = self._authority.answer(challenge, endpoint.host, scope, auth)
            if not authorization:
                if any(offer.scheme == "basic" for offer in parse_challenges(challenge)):
                    raise Unauthorized(f'Get "{url}": no basic auth credentials')
                break
        raise refused(ref, response, body)


def _start(response: httpx.Response) -> int:
    """Where in the blob the body begins."""
    if response.status_code != 206:
        return 0
    match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    return int(match[1]) if match else 0


def _copy(response: httpx.Response, out: FileDescriptor, *, skip: int, count: int) -> None:
    """The body without its first `skip` bytes, at most `count` bytes of it. Errors: Unavailable when it breaks off."""
    try:
        for piece in response.iter_raw():
            progress()
            view = memoryview(piece)
            dropped = min(skip, len(view))
            skip -= dropped
            view = view[dropped:][:count]
            count -= len(view)
            _write(out, view)
            if not count:
                return
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise unreachable(error, "Get", str(response.request.url.copy_with(query=None))) from error
    raise unavailable(f"unexpected EOF: the server sent {count} bytes too few")


def _write(out: FileDescriptor, view: memoryview) -> None:
    try:
        while view:
            view = view[os.write(out, view) :]
    except BrokenPipeError:
        raise Cancelled("nobody reads this blob any more") from None


def _object(body: bytes) -> dict[str, object]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the server's answer is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidArgument("the server's answer is not a JSON object")
    return document
