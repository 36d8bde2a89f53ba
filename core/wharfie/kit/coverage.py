"""`python -m wharfie.kit.coverage`: which methods of each contract have a rule. Fails when a method has no rule.

What a rule says that it calls, it calls: `tests/kit` compares that with the calls that a correct driver sees.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from wharfie import kit
from wharfie.kit.rules import Rule, rules_of
from wharfie.plugins.contract import CONTRACTS, methods


def contract_of(kind: str) -> type:
    """The kit's contract for a kind of drivers."""
    found: type = getattr(kit, f"{kind.capitalize()}Contract")
    return found


def coverage(kind: str) -> Mapping[str, Sequence[Rule]]:
    """Method of the kind's contract → the rules that call it."""
    rules = rules_of(contract_of(kind)).values()
    return {name: [made for made in rules if name in made.methods] for name in methods(CONTRACTS[kind])}


def main() -> int:
    missing: list[str] = []
    for kind in CONTRACTS:
        found = coverage(kind)
        without = [f"{kind}.{name}" for name, rules in found.items() if not rules]
        missing += without
        covered = len(found) - len(without)
        count = len(rules_of(contract_of(kind)))
        print(f"{kind:<9} {count:3} rules, {covered} of {len(found)} methods ({100 * covered // len(found)} %)")
    for name in missing:
        print(f"no rule calls {name}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
