"""What a policy file may say, and which rule decides.

Rules are looked at in their order. One that fits the caller, method and path decides: `deny` refuses; `allow` allows,
unless it has a `containers` part that the request goes beyond: then the next rules are looked at. Nothing fits: refused.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from wharfie.spi.authz import ApiRequest, Decision
from wharfie_authz_policy.containers import Confinement
from wharfie_authz_policy.patterns import matches

ANYONE = "anyone"
_KINDS = ("tls", "socket", "group")


def _caller(text: str) -> str:
    kind, colon, name = text.partition(":")
    if text != ANYONE and not (kind in _KINDS and colon and name):
        raise ValueError(f'{text!r} is none of "tls:NAME", "socket:USER", "group:NAME" and "{ANYONE}"')
    return text


class Rule(BaseModel):
    """One rule. `who` has no default, so that nothing is allowed to everybody by being left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    effect: Literal["allow", "deny"] = "allow"
    who: Annotated[tuple[Annotated[str, AfterValidator(_caller)], ...], Field(min_length=1)]
    methods: tuple[str, ...] = ("*",)
    paths: tuple[str, ...] = ("/**",)
    containers: Confinement | None = None

    def fits(self, request: ApiRequest, callers: tuple[str, ...]) -> bool:
        """Is this rule about this request?"""
        return (
            any(matches(caller, self.who) for caller in callers)
            and matches(request.method, self.methods)
            and matches(request.path, self.paths)
        )


class Policy(BaseModel):
    """A policy file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rules: tuple[Rule, ...] = ()

    def decide(self, request: ApiRequest) -> Decision:
        """What the rules say."""
        callers = callers_of(request)
        objection = ""
        for number, rule in enumerate(self.rules, 1):
            if not rule.fits(request, callers):
                continue
            title = f'rule "{rule.name}"' if rule.name else f"rule {number}"
            if rule.effect == "deny":
                return Decision(allow=False, reason=f"{title} denies {request.method} {request.path}")
            found = rule.containers.objection(request) if rule.containers else ""
            if not found:
                return Decision(allow=True)
            objection = objection or f"{title}: {found}"
        who = f"{request.user} ({request.authentication})" if request.user else "an unknown caller"
        return Decision(allow=False, reason=objection or f"no rule lets {who} {request.method} {request.path}")


def callers_of(request: ApiRequest) -> tuple[str, ...]:
    """What `who` may call the one who asks. TLS names and users of the host are different people."""
    names = [ANYONE]
    if request.authentication == "TLS" and request.user:
        names.append(f"tls:{request.user}")
    elif request.authentication == "socket":
        names.append(f"socket:{request.user}")
        names += (f"group:{group}" for group in request.groups)
    return tuple(names)
