"""Answers to a registry that wants to know who asks (RFC 9110, 11; distribution's token specification)."""

from __future__ import annotations

from urllib.parse import urlencode, urlsplit

from wharfie.spi.distribution import (
    TOKEN_LIMIT,
    Asker,
    Authorizations,
    Challenge,
    basic,
    parse_challenges,
    read_token,
    unavailable,
)
from wharfie.spi.errors import Unauthorized
from wharfie.spi.registry import Credentials
from wharfie_registry_plain.web import Web, read


class Tokens:
    """Answers, and those that still hold. Thread-safe."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self.known = Authorizations()

    def answer(self, header: str, asker: Asker) -> str:
        """To a 401 whose `WWW-Authenticate` is `header`. Errors: Unauthorized, and the token server's."""
        server, scope, auth = asker
        offers = {challenge.scheme: challenge for challenge in reversed(parse_challenges(header))}
        if "bearer" in offers and offers["bearer"].parameters.get("realm"):
            value, life = self._token(server, offers["bearer"], scope, auth)
        elif "basic" in offers and auth is not None and auth.username:
            value, life = basic(auth), Authorizations.LIFE
        else:
            missing = "no basic auth credentials" if "basic" in offers else "unauthorized: authentication required"
            raise Unauthorized(f'Get "{server}/v2/": {missing}')
        return self.known.remember(asker, value, life)

    def _token(self, server: str, offer: Challenge, scope: str, auth: Credentials | None) -> tuple[str, float]:
        realm = offer.parameters["realm"]
        if not self._web.allows(server, realm):
            raise unavailable(f"the registry names a token server that cannot be asked without TLS: {realm!r}")
        query = {"service": offer.parameters.get("service", ""), "scope": offer.parameters.get("scope") or scope}
        if auth is not None and auth.identity_token:
            query |= {"grant_type": "refresh_token", "refresh_token": auth.identity_token, "client_id": "wharfie"}
            asked = self._web.post(realm, urlencode(query).encode())
        else:
            named = auth is not None and auth.username
            query |= {"account": auth.username} if auth is not None and named else {}
            url = realm + ("&" if urlsplit(realm).query else "?") + urlencode({k: v for k, v in query.items() if v})
            asked = self._web.get(url, {}, basic(auth) if auth is not None and named else "")
        with asked as response:
            if response.status in (401, 403):
                raise Unauthorized(f'Get "{realm}": unauthorized: incorrect username or password')
            if response.status != 200:
                raise unavailable(f'Get "{realm}": the token server answered {response.status}')
            token, life = read_token(read(response, realm, TOKEN_LIMIT, "the token"), realm)
        return f"Bearer {token}", life
