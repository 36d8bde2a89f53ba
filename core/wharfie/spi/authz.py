"""Authorization of API requests.

The model
    daemon.json names authorization drivers in order (`authorization-plugins`). Each is asked about every request, and all
    must allow it. A driver that is missing, broken, late or silent refuses: no answer is a refusal. What is judged is the
    parsed request, the very object that the handler then executes, so there is no second decoder to fool.
"""

from __future__ import annotations

import enum
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from wharfie.spi.driver import Driver, Strings, deadline


class AuthzCapability(enum.StrEnum):
    """What an authorization driver may offer beyond the contract."""

    RESPONSES = "responses"  # wants to judge answers too


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRequest:
    """A request as the engine understood it. `body` is the parsed JSON that the handler will get, None without one."""

    user: str
    authentication: str  # "TLS", "socket", ""
    groups: tuple[str, ...] = ()  # of a unix socket's user; a group without a name by its number
    method: str
    path: str  # canonical, without the version prefix: /containers/create
    version: str = ""  # of the API, as the path asked for it, "1.43"
    parameters: Strings = field(default_factory=dict)
    body: Any = None
    raw_body: bytes = field(default=b"", repr=False)  # canonical encoding of `body`
    peer_certificates: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiResponse:
    """An answer that is about to be sent. Of a stream, only the head is known: `body` is empty."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """`reason` is shown to the caller when `allow` is False."""

    allow: bool
    reason: str = ""


class AuthzDriver(Driver[AuthzCapability]):
    """A judge of API requests."""

    kind: ClassVar[str] = "authz"

    @abstractmethod
    @deadline(5)
    def request(self, request: ApiRequest) -> Decision:
        """May this request be executed?"""

    @deadline(5)
    def response(self, request: ApiRequest, response: ApiResponse) -> Decision:
        """May this answer be sent (RESPONSES)?"""
        return Decision(allow=True)
