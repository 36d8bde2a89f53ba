"""One rule for one contract's class: in this process's room, or over the process border."""

from __future__ import annotations

from typing import Any

from wharfie.kit.contract import Contract
from wharfie.kit.room import Outcome
from wharfie.kit.rules import Rule


def run(contract: type[Contract[Any]], made: Rule, *, crash: str = "sample", isolated: bool = False) -> Outcome:
    """What becomes of the rule. `isolated`: the driver runs in a process of its own."""
    if not isolated:
        return contract.try_rule(made, crash=crash)
    if made.here:
        return Outcome(status="not offered", message="it looks into the driver's own process")
    from wharfie.kit.isolated import isolated_driver

    return contract.try_rule(made, crash="none", make=isolated_driver)
