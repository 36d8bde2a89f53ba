"""The driver: requests of the OCI distribution protocol (distribution-spec, "Endpoints")."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar
from urllib.parse import urlencode, urljoin

import httpx

from wharfie.spi.call import progress
from wharfie.spi.distribution import (
    ACCEPT,
    INDEX,
    PAGE_LIMIT,
    PAGES_LIMIT,
    Challenge,
    basic,
    begin_of,
    familiar,
    next_page,
    parse_challenges,
    read_object,
    referrer,
    unavailable,
    write,
)
from wharfie.spi.driver import Context, FileDescriptor, Strings
from wharfie.spi.errors import NotFound, Unauthorized, Unsupported, WharfieError
from wharfie.spi.registry import (
    MANIFEST_LIMIT,
    Credentials,
    Descriptor,
    LoginResult,
    Manifest,
    Reference,
    RegistryCapability,
    RegistryDriver,
    SearchResult,
)
from wharfie_registry_oci.endpoints import Endpoint, Endpoints
from wharfie_registry_oci.failures import unreachable
from wharfie_registry_oci.http import Body, Http, NoTls, read_limited
from wharfie_registry_oci.requests import Requests, pulling, pushing
from wharfie_registry_oci.settings import Settings
from wharfie_registry_oci.upload import Upload

_CANNOT_SAY = (500, 502, 504)
"""Of a blob that a registry has in pieces, after its disk was full; sent once more it is whole."""
_FOREIGN = ("foreign", "nondistributable")


class OciDriver(RegistryDriver):
    """Any registry that speaks the OCI distribution protocol: Docker Hub, distribution, Harbor, cloud registries."""

    name: ClassVar[str] = "oci"
    spi: ClassVar[str] = "1.0"
    settings: ClassVar[str] = "wharfie_registry_oci.settings:Settings"

    def __init__(self, context: Context, settings: Settings) -> None:
        self._settings = settings
        self._endpoints = Endpoints(settings)
        self._http = Http(settings, self._endpoints)
        self._requests = Requests(self._endpoints, self._http)

    def capabilities(self) -> frozenset[RegistryCapability]:
        return frozenset(
            {
                RegistryCapability.CATALOG,
                RegistryCapability.CROSS_MOUNT,
                RegistryCapability.PUSH,
                RegistryCapability.RANGES,
                RegistryCapability.REFERRERS,
                RegistryCapability.SEARCH,
            }
        )

    def close(self) -> None:
        self._http.close()

    def describe_server(self, server: str) -> Strings:
        return {"endpoints": " ".join(endpoint.url for endpoint in self._endpoints.of(server))}

    # The contract's requests

    def resolve(self, ref: Reference, auth: Credentials | None) -> Manifest:
        path = f"/v2/{ref.repository}/manifests/{ref.digest or ref.tag}"
        query = pulling(ref, path, {"Accept": ACCEPT}, needs="pull" if ref.digest else "resolve")
        with self._requests.answer(ref, query, auth) as response:
            data = read_limited(response, MANIFEST_LIMIT, f"the manifest of {familiar(ref)}")
            media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        return Manifest(media_type=media_type, digest="sha256:" + hashlib.sha256(data).hexdigest(), data=data)

    def fetch(
        self, ref: Reference, blob: Descriptor, out: FileDescriptor, *, offset: int, auth: Credentials | None
    ) -> None:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if offset >= blob.size:
            return
        with self._blob(ref, blob, headers, auth) as response:
            skip = offset - begin_of(response.status_code, response.headers)
            if skip < 0:
                raise unavailable(f"the registry {ref.server} sent another part of blob {blob.digest} than was asked for")
            _copy(response, out, skip=skip, count=blob.size - offset)

    @contextlib.contextmanager
    def _blob(
        self, ref: Reference, blob: Descriptor, headers: Mapping[str, str], auth: Credentials | None
    ) -> Iterator[httpx.Response]:
        """From the registry; a foreign layer that it does not have from the addresses that the manifest names."""
        with contextlib.ExitStack() as stack:
            query = pulling(ref, f"/v2/{ref.repository}/blobs/{blob.digest}", headers)
            try:
                response = stack.enter_context(self._requests.answer(ref, query, auth))
            except NotFound as error:
                response = self._elsewhere(stack, blob, headers, error)
            yield response

    def _elsewhere(
        self, stack: contextlib.ExitStack, blob: Descriptor, headers: Mapping[str, str], failure: WharfieError
    ) -> httpx.Response:
        for url in blob.urls if any(word in blob.media_type for word in _FOREIGN) else ():
            if not self._endpoints.allows(url):
                continue
            try:
                response = stack.enter_context(self._http.stream("GET", url, headers=headers))
            except NoTls as error:
                failure = error.cause
                continue
            if response.status_code in (200, 206):
                return response
            failure = unavailable(f'Get "{url}": {response.status_code} {response.reason_phrase}')
        raise failure

    def tags(self, ref: Reference, auth: Credentials | None) -> Sequence[str]:
        path = f"/v2/{ref.repository}/tags/list"
        found: list[str] = []
        for _ in range(PAGES_LIMIT):
            with self._requests.answer(ref, pulling(ref, path, {}, needs="resolve"), auth) as response:
                body = read_limited(response, PAGE_LIMIT, f"the list of tags of {familiar(ref)}")
                more = next_page(response.headers)
            page = read_object(body, "the list of tags").get("tags")
            found += [tag for tag in page if isinstance(tag, str)] if isinstance(page, list) else []
            if more is None:
                return found
            path = urljoin(str(response.request.url), more)
        raise unavailable(f"the list of tags of {familiar(ref)} does not end")

    def referrers(self, ref: Reference, subject: Descriptor, auth: Credentials | None) -> Sequence[Descriptor]:
        path = f"/v2/{ref.repository}/referrers/{subject.digest}"
        found: list[Descriptor] = []
        for _ in range(PAGES_LIMIT):
            query = replace(pulling(ref, path, {"Accept": INDEX}, needs="resolve"), at_home=True)
            try:
                with self._requests.answer(ref, query, auth) as response:
                    body = read_limited(response, MANIFEST_LIMIT, f"the referrers of {subject.digest}")
                    more = next_page(response.headers)
            except NotFound as error:
                raise Unsupported(f"the registry {ref.server} has no referrers API: {error.message}") from error
            rows = read_object(body, "the list of referrers").get("manifests")
            found += [referrer(row) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
            if more is None:
                return found
            path = urljoin(str(response.request.url), more)
        raise unavailable(f"the list of referrers of {subject.digest} does not end")

    def search(self, server: str, term: str, limit: int, auth: Credentials | None) -> Sequence[SearchResult]:
        """The index server's own protocol, of version 1, which Docker Hub and a few others still speak."""
        query = f"/v1/search?{urlencode({'q': term, 'n': limit})}"
        authorization = basic(auth) if auth is not None and auth.username else ""
        last: WharfieError | None = None
        for endpoint in [endpoint for endpoint in self._endpoints.of(server) if endpoint.trusted]:
            url = endpoint.url + query
            try:
                with self._http.stream("GET", url, headers={}, authorization=authorization) as response:
                    self._endpoints.answered(endpoint)
                    if response.status_code != 200:
                        raise unavailable(f"unexpected status code {response.status_code} from {url}")
                    body = read_limited(response, PAGE_LIMIT, f"the answer of {url}")
                    found = read_object(body, f"the answer of {url}").get("results")
            except NoTls as error:
                last = error.cause
                continue
            rows = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
            return [_search_result(row) for row in rows[:limit]]
        raise last or unavailable(f"the registry {server} has no endpoint")

    def exists(self, ref: Reference, blob: Descriptor, auth: Credentials | None) -> bool:
        try:
            query = pushing(ref, "HEAD", f"/v2/{ref.repository}/blobs/{blob.digest}", 200, *_CANNOT_SAY)
            with self._requests.answer(ref, query, auth) as response:
                return response.status_code == 200
        except NotFound:
            return False

    def push_blob(
        self, ref: Reference, blob: Descriptor, data: FileDescriptor, *, mount_from: str, auth: Credentials | None
    ) -> bool:
        return Upload(self._requests, self._endpoints, ref, blob, auth).run(data, mount_from)

    def push_manifest(self, ref: Reference, manifest: Manifest, auth: Credentials | None) -> Descriptor:
        path = f"/v2/{ref.repository}/manifests/{ref.tag or ref.digest or manifest.digest}"
        headers = {"Content-Type": manifest.media_type, "Content-Length": str(len(manifest.data))}
        body = Body(lambda: iter((manifest.data,)))
        with self._requests.answer(ref, pushing(ref, "PUT", path, 200, 201, 202, headers=headers, body=body), auth):
            return Descriptor(media_type=manifest.media_type, digest=manifest.digest, size=len(manifest.data))

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
        if offer.scheme == "basic":
            authorization, identity_token = basic(auth), ""
        else:
            token, identity_token = self._requests.login(offer, auth)
            authorization = f"Bearer {token}"
        with self._http.stream("GET", url, headers={}, authorization=authorization) as response:
            if response.status_code == 200:
                return LoginResult(status="Login Succeeded", identity_token=identity_token)
            said = f"{response.status_code} {response.reason_phrase}"
        raise Unauthorized(f"login attempt to {url} failed with status: {said}")


def _search_result(row: Mapping[str, object]) -> SearchResult:
    stars = row.get("star_count")
    return SearchResult(
        name=str(row.get("name") or ""),
        description=str(row.get("description") or ""),
        stars=stars if isinstance(stars, int) else 0,
        official=row.get("is_official") is True,
        automated=row.get("is_automated") is True,
    )


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
            write(out, view)
            if not count:
                return
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise unreachable(error, "Get", str(response.request.url.copy_with(query=None))) from error
    raise unavailable(f"unexpected EOF: the server sent {count} bytes too few")
