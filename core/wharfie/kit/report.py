"""What the rules said of each driver, as text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from wharfie.kit.room import Outcome
from wharfie.kit.rules import Rule, rules_of
from wharfie.spi import SPI_VERSION


@dataclass
class Report:
    """Outcomes by test class, in the order of their coming."""

    found: dict[type, dict[str, tuple[Rule, Outcome]]] = field(default_factory=dict)

    def add(self, contract: Any, made: Rule, outcome: Outcome) -> None:
        self.found.setdefault(contract, {})[made.id] = (made, outcome)

    def lines(self) -> Iterator[str]:
        for contract, outcomes in self.found.items():
            yield from _lines(contract, outcomes)


def _lines(contract: Any, outcomes: dict[str, tuple[Rule, Outcome]]) -> Iterator[str]:
    by = {
        status: [(made, outcome) for made, outcome in outcomes.values() if outcome.status == status]
        for status in ("passed", "failed", "not offered", "not tried")
    }
    title = next((outcome.value[0] for _, outcome in by["passed"]), f"{contract.kind} driver of {contract.__name__}")
    yield f"{title}: " + ", ".join(f"{len(some)} {status}" for status, some in by.items() if some)
    for status in ("failed", "not offered", "not tried"):
        reasons: dict[str, list[str]] = {}
        for made, outcome in by[status]:
            text = made.sentence if status == "failed" else outcome.message
            reasons.setdefault(text, []).append(made.id)
        for text, ids in reasons.items():
            yield f"  {status:<11}  {' '.join(ids)}  {text}"
    untried = len(by["not tried"]) + len(rules_of(contract)) - len(outcomes)
    if by["failed"]:
        yield f"  does not conform to {SPI_VERSION}"
    elif untried:
        yield f"  no rule is broken, but {untried} were not tried: no statement on {SPI_VERSION}"
    else:
        yield f"  conforms to {SPI_VERSION}"
