"""The rules' page is fresh, and every method of a contract has a rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from wharfie.kit.coverage import contract_of, coverage, main
from wharfie.kit.page import page
from wharfie.kit.rules import Group, rules_of
from wharfie.plugins.contract import CONTRACTS


def test_the_page_is_made_of_the_rules_as_they_are():
    written = Path(__file__).parents[2] / "docs/conformance.md"
    assert written.read_text() == page(), "run: python -m wharfie.kit.page docs/conformance.md"


def test_every_method_has_a_rule(capsys):
    assert main() == 0
    assert capsys.readouterr().out.count("(100 %)") == len(CONTRACTS)


def test_a_method_without_a_rule_is_named(monkeypatch, capsys):
    without = dict(coverage("volume")) | {"mount": []}
    monkeypatch.setattr("wharfie.kit.coverage.coverage", lambda kind: without if kind == "volume" else coverage(kind))
    assert main() == 1
    assert "no rule calls volume.mount" in capsys.readouterr().err


@pytest.mark.parametrize("kind", CONTRACTS)
def test_rules_are_whole(kind):
    for name, made in rules_of(contract_of(kind)).items():
        assert name.partition("-")[0] in ("DRV", kind[:3].upper())
        assert made.sentence.endswith(".")
        assert isinstance(made.group, Group)
        assert made.spi == "1.0"
        assert not made.needs or hasattr(contract_of(kind), made.needs)
