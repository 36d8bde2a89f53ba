"""Which devices a container may use: the rules of `linux.resources.devices`, in both versions' terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from wharfie.spi.errors import InvalidArgument

WILDCARD: Final = -1


class Rule(NamedTuple):
    """One rule. `type`: "a" (all), "b" or "c"; `major`, `minor`: a number or WILDCARD; `access`: letters of "rwm"."""

    allow: bool
    type: str
    major: int
    minor: int
    access: str

    def v1(self) -> str:
        """As devices.allow and devices.deny want it."""
        if self.type == "a":
            return "a"
        major, minor = ("*" if number == WILDCARD else str(number) for number in (self.major, self.minor))
        return f"{self.type} {major}:{minor} {self.access}"


DEFAULTS: Final = (
    Rule(True, "c", WILDCARD, WILDCARD, "m"),  # making a node is harmless: using it is what the other rules decide
    Rule(True, "b", WILDCARD, WILDCARD, "m"),
    Rule(True, "c", 1, 3, "rwm"),  # null
    Rule(True, "c", 1, 5, "rwm"),  # zero
    Rule(True, "c", 1, 7, "rwm"),  # full
    Rule(True, "c", 1, 8, "rwm"),  # random
    Rule(True, "c", 1, 9, "rwm"),  # urandom
    Rule(True, "c", 5, 0, "rwm"),  # tty
    Rule(True, "c", 5, 2, "rwm"),  # ptmx
    Rule(True, "c", 136, WILDCARD, "rwm"),  # pts
)
"""What every container has (OCI runtime-spec, config-linux.md "Default Devices", and what runc adds to it)."""

_DENY_ALL: Final = Rule(False, "a", WILDCARD, WILDCARD, "rwm")


def parse(entry: Mapping[str, Any]) -> Rule:
    """Errors: InvalidArgument."""
    kind = entry.get("type") or "a"
    access = entry.get("access") or "rwm"
    if kind not in ("a", "b", "c", "u") or set(access) - set("rwm"):
        raise InvalidArgument(f'device rule type "{kind}" access "{access}": the type is one of a b c, the access of r w m')
    numbers = [WILDCARD if entry.get(key) is None else int(entry[key]) for key in ("major", "minor")]
    return Rule(bool(entry.get("allow")), "c" if kind == "u" else kind, numbers[0], numbers[1], access)


def effective(entries: Sequence[Mapping[str, Any]]) -> list[Rule]:
    """The rules to write, in order, the first one for all devices: later ones win, repeated ones are said once.

    Without a rule for all devices everything is denied first. Errors: InvalidArgument.
    """
    rules = [_DENY_ALL]
    for rule in (*map(parse, entries), *DEFAULTS):
        if rule.type == "a":
            rules = [Rule(rule.allow, "a", WILDCARD, WILDCARD, "rwm")]
            continue
        if rule in rules:
            rules.remove(rule)
        rules.append(rule)
    return [rule for rule in rules if rule.type == "a" or rule.allow != rules[0].allow]
