"""The kit as its users meet it: through pytest."""

from __future__ import annotations

import json
import os

import pytest

from tests.kit.mutants import TOYS, toy_class, wrong
from wharfie.kit.rules import rules_of
from wharfie.kit.running import run

pytest_plugins = "pytester"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="rooms with namespaces need root")

THREE_LINES = """
import toy
from wharfie.kit import VolumeContract

class TestToy(VolumeContract):
    driver = lambda context: toy.Toy(context, None)
"""


@pytest.fixture
def author(pytester, monkeypatch):
    """An author's repository: the toy, and three lines."""
    pytester.makepyfile(toy=(TOYS / "volume.py").read_text(), test_contract=THREE_LINES)
    monkeypatch.syspath_prepend(pytester.path)
    return pytester


def test_three_lines_put_a_driver_through_its_contract(author):
    result = author.runpytest_inprocess("-q", "--wharfie-crash=sample")
    result.stdout.fnmatch_lines(["*wharfie: conformance*", "*41 passed, 2 not offered*", "*conforms to 1.0*"])
    assert result.ret == 0


def test_the_processes_of_one_run_make_one_report(author):
    author.makepyfile(test_other=THREE_LINES.replace("TestToy", "TestOther"))
    result = author.runpytest_inprocess(
        "-q", "-n", "2", "--dist", "loadfile", "-k", "VOL_01 or VOL_02", "--wharfie-crash=none"
    )
    assert result.stdout.str().count("wharfie: conformance") == 1
    assert result.stdout.str().count(": 2 passed") == 2, "one line for each driver"


def test_the_report_names_what_failed_and_what_was_not_offered(author):
    toy = author.path / "toy.py"
    toy.write_text(toy.read_text().replace('spi = "1.0"', 'spi = "1.7"'))
    result = author.runpytest_inprocess("-q", "--wharfie-crash=none")
    result.stdout.fnmatch_lines(
        [
            "*DRV-01: The class says its name*",
            "Toy.spi is '1.7', this core offers 1.0",
            "  failed       DRV-01  The class says*",
            "  not offered  VOL-07  the test class does not set other_options",
            "  not offered  VOL-24  capability 'size-limit'",
            "  not tried    DRV-18 DRV-19  *--wharfie-crash=none*",
            "  does not conform to 1.0",
        ]
    )
    assert result.ret == 1


def test_a_part_of_the_rules_is_no_conformance(author):
    result = author.runpytest_inprocess("-q", "-k", "vol_02")
    result.stdout.fnmatch_lines(["*1 passed*", "  no rule is broken, but 42 were not tried: no statement on 1.0"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("__import__('os')._exit(3)", "the driver ended its process"),
        ("raise SystemExit('bye')", "SystemExit: bye"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ],
)
def test_a_driver_that_ends_its_process_fails_its_rule_and_nothing_else(tmp_path, change, message):
    contract = toy_class("volume", tmp_path, wrong("ENDS", "self.volumes_folder = ", f"{change}; self.volumes_folder = "))
    outcome = run(contract, rules_of(contract)["VOL-02"])
    assert (outcome.status, message in outcome.message) == ("failed", True)


def test_a_driver_that_hangs_fails_its_rule(tmp_path, monkeypatch):
    monkeypatch.setattr("wharfie.kit.contract.SECONDS", 0.5)
    change = wrong(
        "HANGS", "        try:\n            told", "        __import__('time').sleep(99)\n        try:\n            told"
    )
    contract = toy_class("volume", tmp_path, change)
    outcome = run(contract, rules_of(contract)["VOL-02"])
    assert outcome.message == "did not come to an end within 0.5 seconds"


def test_an_installed_driver_by_name(pytester):
    (pytester.path / "settings.json").write_text(json.dumps({}))
    options = ["--wharfie-driver", "volume.local", "--wharfie-settings", "settings.json", "--wharfie-crash=none"]
    other = 'other_options={"type": "tmpfs", "device": "tmpfs"}'
    result = pytester.runpytest_inprocess("-q", *options, "--wharfie-parameter", other)
    result.stdout.fnmatch_lines(['volume driver "local" (wharfie-volume-local *): 40 passed, 1 not offered, 2 not tried'])
    assert result.ret == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--wharfie-driver", "volume"], "*must be KIND.NAME*"),
        (["--wharfie-driver", "cups.acme"], "*kinds are storage, network*"),
        (["--wharfie-driver", "volume.acme", "--wharfie-parameter", "colour=1"], "*no parameter 'colour'*"),
        (["--wharfie-driver", "volume.acme", "--wharfie-settings", "missing.json"], "*missing.json*"),
    ],
)
def test_options_that_cannot_be(pytester, options, message):
    result = pytester.runpytest_inprocess("-q", *options)
    result.stderr.fnmatch_lines([message])
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_a_name_that_nobody_offers_is_not_tried(pytester):
    result = pytester.runpytest_inprocess("-q", "--wharfie-driver", "volume.nobody", "-k", "vol_02")
    result.stdout.fnmatch_lines(["*no installed distribution has an entry point 'nobody'*"])


def test_settings_that_the_daemon_would_refuse(pytester):
    (pytester.path / "settings.json").write_text(json.dumps({"no-such": 1}))
    options = ["--wharfie-driver", "volume.local", "--wharfie-settings", "settings.json"]
    result = pytester.runpytest_inprocess("-q", *options, "-k", "vol_02")
    result.stdout.fnmatch_lines(["*the daemon would refuse to load it: *no-such*"])


def test_without_a_contract_the_kit_costs_nothing(pytester):
    pytester.makepyfile(
        """
        import sys

        def test_nothing_was_imported():
            names = [name for name in sys.modules if name.startswith("wharfie")]
            assert names == ["wharfie", "wharfie.kit", "wharfie.kit.pytest_plugin"]
            assert "pydantic" not in sys.modules and "stevedore" not in sys.modules
        """
    )
    result = pytester.runpytest_subprocess("-q")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*conformance*")


def test_without_root_a_room_has_no_namespaces_and_kinds_that_need_them_are_not_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    contract = toy_class("volume", tmp_path)
    outcomes = [run(contract, made, crash="none") for made in rules_of(contract).values() if made.id.startswith("VOL")]
    assert {outcome.status for outcome in outcomes} == {"passed", "not offered"}
    network = toy_class("network", tmp_path)
    outcome = run(network, rules_of(network)["NET-01"])
    assert (outcome.status, outcome.message) == ("not tried", "it needs root, for namespaces of its own")


def test_the_same_rules_over_the_process_border(pytester):
    options = ["--wharfie-driver", "ipam.default", "--wharfie-isolated"]
    result = pytester.runpytest_inprocess("-q", *options, "-k", "ipa_05 or ipa_15 or drv_01")
    result.stdout.fnmatch_lines(["*2 passed, 1 not offered*", "*DRV-01*it looks into the driver's own process*"])
