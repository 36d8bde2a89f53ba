"""Answers to challenges. Credentials are sent only when the registry itself asks, as basic authentication to it or to the
token server that it names."""

from __future__ import annotations

from typing import Protocol

from wharfie.spi.distribution import Asker, Authorizations, Challenge, basic, parse_challenges
from wharfie.spi.registry import Credentials


class TokenServer(Protocol):
    """Fetches a token: gives it with its life in seconds."""

    def token(self, challenge: Challenge, scope: str, credentials: Credentials | None) -> tuple[str, float]: ...


class Authority:
    """What to send to whom. Thread-safe."""

    def __init__(self, tokens: TokenServer) -> None:
        self._tokens = tokens
        self.known = Authorizations()

    def answer(self, header: str, asker: Asker) -> str:
        """Answer a 401 whose `WWW-Authenticate` is `header`; empty when there is no answer. Errors: of the token server."""
        _, scope, credentials = asker
        for challenge in parse_challenges(header):
            if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                token, life = self._tokens.token(challenge, challenge.parameters.get("scope") or scope, credentials)
                return self.known.remember(asker, f"Bearer {token}", life)
            if challenge.scheme == "basic" and credentials is not None and credentials.username:
                return self.known.remember(asker, basic(credentials), Authorizations.LIFE)
        return ""
