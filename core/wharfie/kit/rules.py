"""Rules as data: what a driver of a kind must do, each with an id that never changes and a function that tries it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from wharfie.spi.errors import WharfieError

DOCKER = "Docker Engine API"
OCI = "OCI"
OURS = "Wharfie"


class Group(enum.StrEnum):
    """What a rule is about."""

    CONTRACT = "contract"  # what the methods do, and how they refuse
    REPETITION = "repetition"  # what may be repeated, twice and ten times
    ORDER = "order"  # calls in other orders, restarts between them
    CONCURRENCY = "concurrency"
    CAPABILITIES = "capabilities"
    DEADLINES = "deadlines"
    LEAKS = "leaks"
    CRASH = "crash"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. `methods`: those of the contract that it calls. `needs`: what else must be there for it to be tried (an
    attribute of the contract's class that the author sets). `spi`: the minor that it came with."""

    id: str
    sentence: str
    group: Group
    methods: frozenset[str]
    capability: str = ""
    needs: str = ""
    source: str = OURS
    spi: str = "1.0"
    here: bool = False  # looks into the driver's process or class: not tried over the process border
    function: Callable[..., None] = field(repr=False, compare=False)


class Violation(AssertionError):
    """The driver breaks the rule."""


class NotOffered(Exception):
    """The rule is about an ability that this driver does not have."""


class NotTried(Exception):
    """The rule could not be tried here; the message says what is missing."""


def rule(
    sentence: str,
    *,
    group: Group = Group.CONTRACT,
    methods: str,
    capability: str = "",
    needs: str = "",
    source: str = OURS,
    spi: str = "1.0",
    here: bool = False,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a contract's method a rule and a test. Its name is its id: `test_vol_07` is VOL-07.

    The method is written for `(self, rig, driver)`; what pytest collects asks for the kit's fixture instead.
    """

    def mark(function: Callable[..., None]) -> Callable[..., None]:
        made = Rule(
            id=function.__name__.removeprefix("test_").replace("_", "-").upper(),
            sentence=sentence,
            group=group,
            methods=frozenset(methods.split()),
            capability=capability,
            needs=needs,
            source=source,
            spi=spi,
            here=here,
            function=function,
        )

        def test(self: Any, wharfie_kit: Callable[[type, Rule], None]) -> None:
            wharfie_kit(type(self), made)

        test.__name__ = function.__name__
        test.__qualname__ = function.__qualname__
        test.__module__ = function.__module__
        test.__doc__ = sentence
        test.__rule__ = made  # type: ignore[attr-defined]  # data beside its test
        return test

    return mark


def rules_of(contract: type) -> Mapping[str, Rule]:
    """The rules of a contract, its kind's own and the common ones, by id."""
    found = {}
    for name in dir(contract):
        made = getattr(getattr(contract, name), "__rule__", None)
        if isinstance(made, Rule):
            found[made.id] = made
    return dict(sorted(found.items()))


def require(condition: object, message: str) -> None:
    """The driver breaks the rule unless `condition`. The kit says itself what it saw, with or without pytest's help."""
    if not condition:
        raise Violation(message)


@contextmanager
def refused(error: type[WharfieError], doing: str, *, naming: str = "") -> Iterator[None]:
    """What is done within must be refused with `error`, with a text that contains `naming`."""
    try:
        yield
    except error as refusal:
        require(refusal.message.strip(), f"{doing} is refused with {error.__name__} without a message")
        require(naming in refusal.message, f"the message for {doing} does not name {naming!r}: {refusal.message!r}")
    except (Violation, NotOffered, NotTried):
        raise
    except Exception as other:
        raise Violation(f"{doing} must raise {error.__name__}, it raised {type(other).__name__}: {other}") from other
    else:
        raise Violation(f"{doing} must raise {error.__name__}, it succeeded")


@contextmanager
def succeeds(doing: str) -> Iterator[None]:
    """What is done within may not fail."""
    try:
        yield
    except (Violation, NotOffered, NotTried):
        raise
    except Exception as error:
        raise Violation(f"{doing} failed with {type(error).__name__}: {error}") from error
