"""`python -m wharfie.kit.page [FILE]`: the rules of all kinds as a page of the documentation."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from wharfie.kit.contract import Contract
from wharfie.kit.coverage import contract_of
from wharfie.kit.rules import Group, Rule, rules_of
from wharfie.plugins.contract import CONTRACTS
from wharfie.spi import SPI_VERSION

_HEAD = f"""# The rules of conformance

Made by `python -m wharfie.kit.page` from the rules themselves; how to run them: [Writing a driver](writing-a-driver.md).

A driver *conforms to {SPI_VERSION}* when it breaks none of the rules that came with that version or before, of its kind
and of all kinds. Rules about a capability that it does not declare are *not offered* and count for nothing; rules that
could not be tried here (no root, a missing program) leave the question open. An id stays with its rule for ever.
"""


def page() -> str:
    lines = [_HEAD, "## All kinds\n", *_table(rules_of(Contract))]
    for kind in CONTRACTS:
        contract = contract_of(kind)
        own = {name: made for name, made in rules_of(contract).items() if not name.startswith("DRV-")}
        lines += [f"\n## {kind.capitalize()}\n", *_parameters(contract), *_table(own)]
    return "\n".join(lines) + "\n"


def _parameters(contract: type) -> Iterator[str]:
    text = " ".join((contract.__doc__ or "").split())
    if text:
        yield f"`{contract.__name__}`. {text}\n"


def _table(rules: Mapping[str, Rule]) -> Iterator[str]:
    yield "| Rule | | Group | Methods | Source | Since |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for group in Group:
        for made in rules.values():
            if made.group is group:
                only = f" *Capability {made.capability}.*" if made.capability else ""
                methods = " ".join(f"`{name}`" for name in sorted(made.methods))
                yield f"| {made.id} | {made.sentence}{only} | {made.group} | {methods} | {made.source} | {made.spi} |"


def main() -> int:
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(page())
    else:
        print(page(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
