"""Authorization driver `policy`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import ClassVar

from wharfie.spi.authz import ApiRequest, AuthzDriver, Decision
from wharfie.spi.driver import Context, Problem
from wharfie.spi.errors import Unavailable
from wharfie_authz_policy.file import PolicyFile
from wharfie_authz_policy.settings import PolicySettings


class PolicyDriver(AuthzDriver):
    """Asks the rules of a file. Without a file that can be understood, everything is refused."""

    name: ClassVar[str] = "policy"
    spi: ClassVar[str] = "1.0"
    settings: ClassVar[str] = "wharfie_authz_policy.settings:PolicySettings"

    def __init__(self, context: Context, settings: PolicySettings) -> None:
        self._log: logging.Logger = context.log
        self._path = settings.file
        self._file = PolicyFile(settings.file)

    def check(self) -> Sequence[Problem]:
        """A file that is wrong now may be mended while the daemon runs: a word, no reason to refuse to open."""
        try:
            self._file.current()
        except Unavailable as error:
            return (Problem(what=error.message, fix=f"correct {self._path}; it is read again by itself", fatal=False),)
        return ()

    def request(self, request: ApiRequest) -> Decision:
        try:
            decision = self._file.current().decide(request)
        except Unavailable as error:
            self._log.error("%s", error.message)
            return Decision(allow=False, reason=error.message)
        except (TypeError, ValueError, OSError) as error:
            # A body that nobody thought of is this caller's fault: as this driver's it would open the circuit for all.
            self._log.error("%s %s cannot be judged: %s", request.method, request.path, error)
            return Decision(allow=False, reason=f"the request cannot be judged: {error}")
        if not decision.allow:
            who = f"{request.user or 'unknown'} ({request.authentication or 'not authenticated'})"
            self._log.info("refused to %s: %s %s: %s", who, request.method, request.path, decision.reason)
        return decision

    def status(self) -> Sequence[tuple[str, str]]:
        try:
            rules = str(len(self._file.current().rules))
        except Unavailable as error:
            rules = f"none, everything is refused: {error.message}"
        return (("Policy File", str(self._path)), ("Rules", rules))
