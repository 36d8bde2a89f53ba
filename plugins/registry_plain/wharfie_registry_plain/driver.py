"""The driver: the read half of the OCI distribution protocol (distribution-spec, "Pull" and "Content Discovery")."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPResponse
from typing import ClassVar
from urllib.parse import urljoin, urlsplit

from wharfie.spi.distribution import (
    ACCEPT,
    ERROR_LIMIT,
    PAGE_LIMIT,
    PAGES_LIMIT,
    begin_of,
    familiar,
    next_page,
    read_object,
    referrer,
    refused,
    unavailable,
    write,
)
from wharfie.spi.driver import Context, FileDescriptor, Strings
from wharfie.spi.errors import (
    Forbidden,
    InvalidArgument,
    NotFound,
    Unauthorized,
    Unavailable,
    Unsupported,
)
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
from wharfie_registry_plain.auth import Tokens
from wharfie_registry_plain.settings import Settings
from wharfie_registry_plain.web import NoAnswer, Web, origin, pieces, read


class PlainDriver(RegistryDriver):
    """Reads from any registry of the OCI distribution protocol; for daemons without an HTTP library."""

    name: ClassVar[str] = "plain"
    spi: ClassVar[str] = "1.0"
    settings: ClassVar[str] = "wharfie_registry_plain.settings:Settings"

    def __init__(self, context: Context, settings: Settings) -> None:
        self._settings = settings
        self._speaks: dict[str, str] = {}  # what an insecure server turned out to speak: a scheme

    def open(self) -> None:
        self._web = Web(self._settings)
        self._tokens = Tokens(self._web)

    def capabilities(self) -> frozenset[RegistryCapability]:
        return frozenset({RegistryCapability.CATALOG, RegistryCapability.RANGES, RegistryCapability.REFERRERS})

    def describe_server(self, server: str) -> Strings:
        return {"endpoints": " ".join(f"{scheme}://{server}" for scheme in self._schemes(server))}

    def resolve(self, ref: Reference, auth: Credentials | None) -> Manifest:
        path = f"/v2/{ref.repository}/manifests/{ref.digest or ref.tag}"
        with self._answer(ref, path, auth, {"Accept": ACCEPT}) as (response, url):
            data = read(response, url, MANIFEST_LIMIT, f"the manifest of {familiar(ref)}")
            media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        return Manifest(media_type=media_type, digest="sha256:" + hashlib.sha256(data).hexdigest(), data=data)

    def fetch(
        self, ref: Reference, blob: Descriptor, out: FileDescriptor, *, offset: int, auth: Credentials | None
    ) -> None:
        if offset >= blob.size:
            return
        wanted = {"Range": f"bytes={offset}-"} if offset else {}
        with self._answer(ref, f"/v2/{ref.repository}/blobs/{blob.digest}", auth, wanted) as (response, url):
            skip = offset - begin_of(response.status, response.headers)
            if skip < 0:
                raise unavailable(f"the registry {ref.server} sent another part of blob {blob.digest} than was asked for")
            left = blob.size - offset
            for piece in pieces(response, url):
                useful = memoryview(piece)[skip:][:left]
                skip = max(0, skip - len(piece))
                left -= len(useful)
                write(out, useful)
                if not left:
                    return
        raise unavailable(f"unexpected EOF: the server sent {left} bytes too few")

    def tags(self, ref: Reference, auth: Credentials | None) -> Sequence[str]:
        what = f"the list of tags of {familiar(ref)}"
        pages = self._pages(ref, f"/v2/{ref.repository}/tags/list", "tags", what, auth)
        return [tag for tag in pages if isinstance(tag, str)]

    def referrers(self, ref: Reference, subject: Descriptor, auth: Credentials | None) -> Sequence[Descriptor]:
        what = f"the list of referrers of {subject.digest}"
        path = f"/v2/{ref.repository}/referrers/{subject.digest}"
        try:
            rows = list(self._pages(ref, path, "manifests", what, auth))
        except NotFound as error:
            raise Unsupported(f"the registry {ref.server} has no referrers API: {error.message}") from error
        return [referrer(row) for row in rows if isinstance(row, dict)]

    def _pages(self, ref: Reference, path: str, key: str, what: str, auth: Credentials | None) -> Iterator[object]:
        """The items of a list that the server gives in pages (distribution-spec, "Listing Tags")."""
        for _ in range(PAGES_LIMIT):
            with self._answer(ref, path, auth, {}) as (response, url):
                page = read_object(read(response, url, PAGE_LIMIT, what), what).get(key)
                more = next_page(response.headers)
            yield from page if isinstance(page, list) else ()
            if more is None:
                return
            parts = urlsplit(urljoin(path, more))  # of the same server, whatever the link says
            path = f"{parts.path}?{parts.query}"
        raise unavailable(f"{what} does not end")

    def login(self, server: str, auth: Credentials) -> LoginResult:
        try:
            with self._answer(Reference(server=server, repository=""), "/v2/", auth, {}):
                return LoginResult(status="Login Succeeded")
        except (NotFound, Forbidden, Unauthorized) as error:
            raise Unauthorized(f"login attempt to {server} failed: {error.message}") from error

    def _schemes(self, server: str) -> Sequence[str]:
        if not self._settings.insecure(server):
            return ("https",)
        return (self._speaks[server],) if server in self._speaks else ("https", "http")

    @contextlib.contextmanager
    def _answer(
        self, ref: Reference, path: str, auth: Credentials | None, headers: Mapping[str, str]
    ) -> Iterator[tuple[HTTPResponse, str]]:
        """A good answer, with the address for messages."""
        with contextlib.ExitStack() as stack:
            *others, last = self._schemes(ref.server)
            for scheme in others:
                with contextlib.suppress(NoAnswer):
                    response = self._ask(stack, ref, f"{scheme}://{ref.server}", path, auth, headers)
                    break
            else:
                scheme = last
                try:
                    response = self._ask(stack, ref, f"{scheme}://{ref.server}", path, auth, headers)
                except NoAnswer:
                    self._speaks.pop(ref.server, None)
                    raise
            self._speaks[ref.server] = scheme
            yield response, f"{scheme}://{ref.server}{path}"

    def _ask(
        self,
        stack: contextlib.ExitStack,
        ref: Reference,
        server: str,
        path: str,
        auth: Credentials | None,
        headers: Mapping[str, str],
    ) -> HTTPResponse:
        key = (server, f"repository:{ref.repository}:pull" if ref.repository else "", auth)
        authorization = self._tokens.known.header(key)
        for attempt in range(2):
            asked = contextlib.ExitStack()
            response = asked.enter_context(self._web.get(server + path, headers, authorization))
            stack.push(asked)
            if response.status in (200, 206):
                return response
            challenge = response.headers.get("WWW-Authenticate", "")
            if response.status != 401 or attempt or not challenge or origin(response.url) != origin(server):
                break  # also where a server that we were redirected to asks: it gets no answer
            asked.close()
            authorization = self._tokens.answer(challenge, key)
        body = b""
        with contextlib.suppress(Unavailable, InvalidArgument):  # the status says enough
            body = read(response, server + path, ERROR_LIMIT, "the error")
        raise refused(ref, response.status, response.reason, response.headers, body)
