"""The kit is right: of each kind a correct toy passes, and for each rule there is a wrong driver that it finds.

A wrong driver breaks its rule and no other. Trying all rules on all wrong drivers takes minutes: without KIT_CROSS=all
in the environment each is tried with a part of the other rules, a different one for each.
"""

from __future__ import annotations

import os

import pytest

from tests.kit.mutants import toy_class, wrongs
from wharfie import kit
from wharfie.kit.rules import Group, rules_of
from wharfie.kit.running import run

KINDS = os.environ.get("KIT_KINDS", "volume network storage ipam log authz registry runtime").split()
NOT_EVERYWHERE = {"RUN-36": {"attach", "restore"}}
"""What a rule calls only on a host that can do what the rule begins with: here, write a checkpoint."""
EACH = 1 if os.environ.get("KIT_CROSS") == "all" else 40

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="rooms with namespaces need root")


@pytest.mark.parametrize("kind", KINDS)
def test_a_correct_toy_keeps_every_rule(kind, tmp_path):
    contract = toy_class(kind, tmp_path)
    # The others are our own drivers under another name: their crashes are tried where they are.
    crash = "sample" if kind == "volume" else "none"
    outcomes = {made.id: run(contract, made, crash=crash) for made in rules_of(contract).values()}
    broken = {
        name: outcome.message + outcome.detail
        for name, outcome in outcomes.items()
        if outcome.status == "failed"
        or (outcome.status == "not tried" and rules_of(contract)[name].group is not Group.CRASH)
    }
    assert not broken
    # What a rule says that it calls, it calls: the coverage of methods is made of that.
    for made in rules_of(contract).values():
        if outcomes[made.id].status == "passed":
            _, called = outcomes[made.id].value
            assert made.methods - called <= NOT_EVERYWHERE.get(made.id, set()), made.id


@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_has_a_wrong_driver(kind):
    contract = getattr(kit, f"{kind.capitalize()}Contract")
    wanted = {name for name in rules_of(contract) if kind == "volume" or not name.startswith("DRV-")}
    assert {one.rule for one in wrongs(kind)} == wanted


@pytest.mark.parametrize(
    ("kind", "change"), [pytest.param(kind, one, id=one.rule) for kind in KINDS for one in wrongs(kind)]
)
def test_a_wrong_driver_breaks_its_rule_and_no_other(kind, change, tmp_path):
    contract = toy_class(kind, tmp_path, change)
    rules = rules_of(contract)
    own = run(contract, rules[change.rule])
    assert own.status == "failed", own.message
    number = list(rules).index(change.rule)
    # The common rules work with whole lives of the kind's objects, in which any fault shows: their own wrong drivers are
    # volumes.
    mine = "" if kind == "volume" else change.rule.partition("-")[0]
    others = [made for made in rules.values() if made.id != change.rule and made.id.startswith(mine)]
    others = [made for made in others if made.group is not Group.CRASH and made.id not in change.also]
    broken = {}
    for index, made in enumerate(others):
        if (index + number) % EACH == 0 and (outcome := run(contract, made)).status == "failed":
            broken[made.id] = outcome.message
    assert not broken
