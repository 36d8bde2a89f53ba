"""Challenges (RFC 9110, 11.3) and tokens (distribution's token specification).

Credentials are sent only when the registry itself asks, as basic authentication to it or to the token server that it names.
"""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from wharfie.spi.registry import Credentials

_DEFAULT_LIFE = 60.0
_EARLY = 10.0
"""A token counts as expired this many seconds before it is."""
_CACHED = 256

_CHALLENGE = re.compile(r"(?:^|,)\s*(Basic|Bearer)\s+", re.IGNORECASE)
_PARAMETER = re.compile(r'([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate that a server offers; `scheme` in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """Those that we know, bearer first."""
    marks = list(_CHALLENGE.finditer(header))
    ends = [*(mark.start() for mark in marks), len(header)][1:]
    found = [
        Challenge(
            mark[1].lower(),
            {key.lower(): quoted or bare for key, quoted, bare in _PARAMETER.findall(header[mark.end() : end])},
        )
        for mark, end in zip(marks, ends, strict=True)
    ]
    return sorted(found, key=lambda challenge: challenge.scheme != "bearer")


def basic(credentials: Credentials) -> str:
    """The header's value."""
    pair = f"{credentials.username}:{credentials.password}".encode()
    return "Basic " + base64.b64encode(pair).decode()


class TokenServer(Protocol):
    """Fetches a token: gives it with its life in seconds."""

    def token(self, challenge: Challenge, scope: str, credentials: Credentials | None) -> tuple[str, float]: ...


Key = tuple[str, str, Credentials | None]
"""Server, scope, and who asks."""


class Authority:
    """What to send to whom, remembered as long as it holds. Thread-safe."""

    def __init__(self, tokens: TokenServer) -> None:
        self._tokens = tokens
        self._lock = threading.Lock()
        self._known: dict[Key, tuple[str, float]] = {}

    def header(self, server: str, scope: str, credentials: Credentials | None) -> str:
        """The `Authorization` header to begin with; empty for none."""
        if credentials is not None and credentials.registry_token:
            return f"Bearer {credentials.registry_token}"
        with self._lock:
            value, until = self._known.get((server, scope, credentials), ("", 0.0))
        return value if until > time.monotonic() else ""

    def answer(self, header: str, server: str, scope: str, credentials: Credentials | None) -> str:
        """Answer a 401 whose `WWW-Authenticate` is `header`; empty when there is no answer. Errors: of the token server."""
        for challenge in parse_challenges(header):
            if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                token, life = self._tokens.token(challenge, challenge.parameters.get("scope") or scope, credentials)
                return self._remember((server, scope, credentials), f"Bearer {token}", life or _DEFAULT_LIFE)
            if challenge.scheme == "basic" and credentials is not None and credentials.username:
                return self._remember((server, scope, credentials), basic(credentials), _DEFAULT_LIFE)
        return ""

    def _remember(self, key: Key, value: str, life: float) -> str:
        with self._lock:
            while len(self._known) >= _CACHED:
                del self._known[next(iter(self._known))]
            self._known[key] = (value, time.monotonic() + life - _EARLY)
        return value

    def forget(self, server: str, scope: str, credentials: Credentials | None) -> None:
        """It was refused."""
        with self._lock:
            self._known.pop((server, scope, credentials), None)
