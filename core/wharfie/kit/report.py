"""What the rules said of each driver, as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from wharfie.kit.room import Outcome
from wharfie.kit.rules import Rule, rules_of
from wharfie.spi import SPI_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one rule, in words alone: verdicts of several pytest processes make one report.

    `contract`: the test class with its module. `title`: the driver by its own words, or the class when it never spoke.
    `rules`: how many the class has in all.
    """

    contract: str
    title: str
    spoke: bool
    rules: int
    rule: str
    sentence: str
    status: str
    message: str


@dataclass
class Report:
    """Verdicts by test class, in the order of their coming."""

    found: dict[str, dict[str, Verdict]] = field(default_factory=dict)

    def add(self, contract: Any, made: Rule, outcome: Outcome) -> None:
        spoke = outcome.status == "passed"
        self._keep(
            Verdict(
                contract=f"{contract.__module__}.{contract.__qualname__}",
                title=outcome.value[0] if spoke else f"{contract.kind} driver of {contract.__name__}",
                spoke=spoke,
                rules=len(rules_of(contract)),
                rule=made.id,
                sentence=made.sentence,
                status=outcome.status,
                message=outcome.message,
            )
        )

    def as_data(self) -> list[dict[str, Any]]:
        """For another process's `merge`."""
        return [asdict(verdict) for verdicts in self.found.values() for verdict in verdicts.values()]

    def merge(self, data: Iterable[dict[str, Any]]) -> None:
        for entry in data:
            self._keep(Verdict(**entry))

    def lines(self) -> Iterator[str]:
        for verdicts in self.found.values():
            yield from _lines(list(verdicts.values()))

    def _keep(self, verdict: Verdict) -> None:
        self.found.setdefault(verdict.contract, {})[verdict.rule] = verdict


def _lines(verdicts: list[Verdict]) -> Iterator[str]:
    by = {
        status: [verdict for verdict in verdicts if verdict.status == status]
        for status in ("passed", "failed", "not offered", "not tried")
    }
    title = next((verdict.title for verdict in verdicts if verdict.spoke), verdicts[0].title)
    yield f"{title}: " + ", ".join(f"{len(some)} {status}" for status, some in by.items() if some)
    for status in ("failed", "not offered", "not tried"):
        reasons: dict[str, list[str]] = {}
        for verdict in by[status]:
            reasons.setdefault(verdict.sentence if status == "failed" else verdict.message, []).append(verdict.rule)
        for text, ids in reasons.items():
            yield f"  {status:<11}  {' '.join(ids)}  {text}"
    untried = len(by["not tried"]) + verdicts[0].rules - len(verdicts)
    if by["failed"]:
        yield f"  does not conform to {SPI_VERSION}"
    elif untried:
        yield f"  no rule is broken, but {untried} were not tried: no statement on {SPI_VERSION}"
    else:
        yield f"  conforms to {SPI_VERSION}"
