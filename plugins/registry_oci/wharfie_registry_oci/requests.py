"""Requests to a registry: to its endpoints one after the other, authenticated as they ask for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

import httpx

from wharfie.spi.distribution import (
    TOKEN_LIMIT,
    Challenge,
    basic,
    parse_challenges,
    read_identity_token,
    read_token,
    unavailable,
)
from wharfie.spi.errors import Forbidden, NotFound, Unauthorized, Unavailable, WharfieError
from wharfie.spi.registry import Credentials, Reference
from wharfie_registry_oci.auth import Authority
from wharfie_registry_oci.endpoints import Endpoint, Endpoints
from wharfie_registry_oci.failures import push_refused, refused
from wharfie_registry_oci.http import Body, Http, NoTls, error_body, origin, read_limited

_CLIENT = "wharfie"
"""Who we are to token servers."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked of a registry. `path`: on the server, or a whole address that it gave us. `scope`: of a token.
    `at_home`: of no mirror, whose answer would be less than the registry's."""

    method: str
    path: str
    scope: str
    good: frozenset[int] = frozenset({200})
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    needs: str = "pull"
    refusal: Callable[[Reference, httpx.Response, bytes], WharfieError] = refused
    at_home: bool = False


def pulling(ref: Reference, path: str, headers: Mapping[str, str], *, needs: str = "pull") -> Query:
    """A query that changes nothing. `needs`: "resolve" for what a tag means, else "pull"."""
    return Query("GET", path, f"repository:{ref.repository}:pull", frozenset({200, 206}), headers, needs=needs)


def pushing(
    ref: Reference,
    method: str,
    path: str,
    *good: int,
    headers: Mapping[str, str] | None = None,
    body: Body | None = None,
    mount_from: str = "",
) -> Query:
    """A query that belongs to a push."""
    scope = f"repository:{ref.repository}:pull,push" + (f" repository:{mount_from}:pull" if mount_from else "")
    return Query(method, path, scope, frozenset(good), headers or {}, body, "push", push_refused)


class Requests:
    """The queries of the contract. Thread-safe."""

    def __init__(self, endpoints: Endpoints, http: Http) -> None:
        self._endpoints = endpoints
        self._http = http
        self._authority = Authority(self)

    @contextlib.contextmanager
    def answer(self, ref: Reference, query: Query, auth: Credentials | None) -> Iterator[httpx.Response]:
        """A good answer: from the first endpoint that has one. Mirrors are only read. Errors: the query's refusals,
        Unavailable."""
        with contextlib.ExitStack() as stack:
            yield self._first_answer(stack, ref, query, auth)

    def _first_answer(
        self, stack: contextlib.ExitStack, ref: Reference, query: Query, auth: Credentials | None
    ) -> httpx.Response:
        failure: WharfieError | None = None
        for endpoint in self._endpoints.of(ref.server):
            if not endpoint.trusted and (query.method != "GET" or query.at_home):
                continue
            if query.needs not in endpoint.capabilities:
                continue
            try:
                response = self._authenticated(stack, endpoint, ref, query, auth if endpoint.trusted else None)
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
        self, stack: contextlib.ExitStack, endpoint: Endpoint, ref: Reference, query: Query, auth: Credentials | None
    ) -> httpx.Response:
        url = endpoint.address(query.path)
        at_home = origin(url) == origin(endpoint.url)
        asker = (endpoint.host, query.scope, auth)
        authorization = self._authority.known.header(asker) if at_home else ""
        for attempt in range(2):
            inner = stack.enter_context(contextlib.ExitStack())
            response = inner.enter_context(
                self._http.stream(
                    query.method,
                    url,
                    headers={**endpoint.headers, **query.headers} if at_home else query.headers,
                    authorization=authorization,
                    body=query.body,
                    shown=f"{endpoint.url}/v2/",
                )
            )
            if response.status_code in query.good:
                return response
            said = error_body(response)
            inner.close()
            if response.status_code != 401 or attempt or not at_home or response.url.netloc != httpx.URL(url).netloc:
                break
            self._authority.known.forget(asker)
            challenge = response.headers.get("WWW-Authenticate", "")
            authorization = self._authority.answer(challenge, asker)
            if not authorization:
                if any(offer.scheme == "basic" for offer in parse_challenges(challenge)):
                    where = f'Get "{url}": ' if query.method == "GET" else ""
                    raise Unauthorized(f"{where}no basic auth credentials")
                break
        raise query.refusal(ref, response, said)

    def token(self, challenge: Challenge, scope: str, credentials: Credentials | None) -> tuple[str, float]:
        """A bearer token and its life in seconds, from the server that `challenge` names."""
        return read_token(self._token(challenge, scope, credentials), challenge.parameters.get("realm", ""))

    def login(self, challenge: Challenge, credentials: Credentials) -> tuple[str, str]:
        """A bearer token, and the identity token that stands for the password from now on; empty without one."""
        body = self._token(challenge, "", credentials, offline=True)
        return read_token(body, challenge.parameters.get("realm", ""))[0], read_identity_token(body)

    def _token(self, challenge: Challenge, scope: str, credentials: Credentials | None, *, offline: bool = False) -> bytes:
        """The token server's answer. `offline`: one that outlives the client's session is wanted."""
        realm = challenge.parameters.get("realm", "")
        if not self._endpoints.allows(realm):
            raise unavailable(f"the registry names a token server that cannot be asked without TLS: {realm!r}")
        service = challenge.parameters.get("service", "")
        query = [("service", service)] if service else []
        try:
            if credentials is not None and credentials.identity_token:
                query += [("scope", scope)] if scope else []
                status, body = self._refresh(realm, query, credentials.identity_token)
            else:
                query += [("scope", each) for each in scope.split()]
                query += [("offline_token", "true"), ("client_id", _CLIENT)] if offline else []
                status, body = self._ask(realm, query, credentials)
        except NoTls as error:
            raise error.cause from None
        if status in (401, 403):
            raise Unauthorized(f'Get "{realm}": unauthorized: incorrect username or password')
        if status != 200:
            raise unavailable(f'Get "{realm}": the token server answered {status}')
        return body

    def _ask(self, realm: str, query: list[tuple[str, str]], credentials: Credentials | None) -> tuple[int, bytes]:
        authorization = ""
        if credentials is not None and credentials.username:
            query = [*query, ("account", credentials.username)]
            authorization = basic(credentials)
        url = realm + ("&" if urlsplit(realm).query else "?") + urlencode(query)
        with self._http.stream("GET", url, headers={}, authorization=authorization, shown=realm) as response:
            return response.status_code, read_limited(response, TOKEN_LIMIT, f"the token of {realm}")

    def _refresh(self, realm: str, query: list[tuple[str, str]], identity_token: str) -> tuple[int, bytes]:
        form = {**dict(query), "grant_type": "refresh_token", "refresh_token": identity_token, "client_id": _CLIENT}
        with self._http.post(realm, form) as response:
            return response.status_code, read_limited(response, TOKEN_LIMIT, f"the token of {realm}")
