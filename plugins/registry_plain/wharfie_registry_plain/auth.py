"""Answers to a registry that wants to know who asks (RFC 9110, 11; distribution's token specification)."""

from __future__ import annotations

import base64
import re
import threading
import time
from urllib.parse import urlencode, urlsplit

from wharfie.spi.errors import Unauthorized
from wharfie.spi.registry import Credentials
from wharfie_registry_plain.web import Web, read, read_object, unavailable

_TOKEN_LIMIT = 1 << 20
_LIFE, _LIFE_LIMIT, _EARLY = 60.0, 3600.0, 10.0
_KEPT = 128
_OFFER = re.compile(r"(?:^|,)\s*(Basic|Bearer)\s+", re.IGNORECASE)
_PARAMETER = re.compile(r'(\w+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))')

Key = tuple[str, str, Credentials | None]
"""Server's address, scope, and who asks: a token is of use to nobody else."""


class Tokens:
    """What was answered, for as long as it holds. Thread-safe."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._lock = threading.Lock()
        self._known: dict[Key, tuple[str, float]] = {}

    def known(self, key: Key) -> str:
        """The `Authorization` to begin with; empty for none."""
        if key[2] is not None and key[2].registry_token:
            return f"Bearer {key[2].registry_token}"
        with self._lock:
            value, until = self._known.get(key, ("", 0.0))
        return value if until > time.monotonic() else ""

    def answer(self, header: str, key: Key) -> str:
        """To a 401 whose `WWW-Authenticate` is `header`. Errors: Unauthorized, and the token server's."""
        server, scope, auth = key
        offers = _OFFER.split(header)[1:]  # scheme, parameters, scheme, parameters…
        found = {
            scheme.lower(): {name.lower(): quoted or bare for name, quoted, bare in _PARAMETER.findall(text)}
            for scheme, text in zip(offers[::2], offers[1::2], strict=True)
        }
        if realm := found.get("bearer", {}).get("realm"):
            value, life = self._token(server, realm, found["bearer"], scope, auth)
        elif "basic" in found and auth is not None and auth.username:
            value, life = _basic(auth), _LIFE
        else:
            missing = "no basic auth credentials" if "basic" in found else "unauthorized: authentication required"
            raise Unauthorized(f'Get "{server}/v2/": {missing}')
        with self._lock:
            while len(self._known) >= _KEPT:
                del self._known[next(iter(self._known))]
            self._known[key] = (value, time.monotonic() + life - _EARLY)
        return value

    def _token(
        self, server: str, realm: str, offer: dict[str, str], scope: str, auth: Credentials | None
    ) -> tuple[str, float]:
        if not self._web.allows(server, realm):
            raise unavailable(f"the registry names a token server that cannot be asked without TLS: {realm!r}")
        query = {"service": offer.get("service", ""), "scope": offer.get("scope") or scope}
        if auth is not None and auth.identity_token:
            query |= {"grant_type": "refresh_token", "refresh_token": auth.identity_token, "client_id": "wharfie"}
            asked = self._web.post(realm, urlencode(query).encode())
        else:
            named = auth is not None and auth.username
            query |= {"account": auth.username} if auth is not None and named else {}
            url = realm + ("&" if urlsplit(realm).query else "?") + urlencode({k: v for k, v in query.items() if v})
            asked = self._web.get(url, {}, _basic(auth) if auth is not None and named else "")
        with asked as response:
            if response.status in (401, 403):
                raise Unauthorized(f'Get "{realm}": unauthorized: incorrect username or password')
            if response.status != 200:
                raise unavailable(f'Get "{realm}": the token server answered {response.status}')
            told = read_object(read(response, realm, _TOKEN_LIMIT, "the token"), f"the token of {realm}")
        token, life = told.get("token") or told.get("access_token"), told.get("expires_in")
        if not isinstance(token, str) or not token.isprintable() or not token.isascii():
            raise unavailable(f'Get "{realm}": the token server sent no token')
        return f"Bearer {token}", float(min(life, _LIFE_LIMIT)) if isinstance(life, int | float) and life > 0 else _LIFE


def _basic(auth: Credentials) -> str:
    return "Basic " + base64.b64encode(f"{auth.username}:{auth.password}".encode()).decode()
