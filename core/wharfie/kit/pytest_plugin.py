"""The kit's door in pytest: options, one fixture, and the report. It imports nothing until a contract is run."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from wharfie.kit.rules import Rule

REPORT = pytest.StashKey[Any]()
_FROM_WORKER = "wharfie_kit"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("wharfie", "conformance of Wharfie drivers")
    group.addoption("--wharfie-driver", metavar="KIND.NAME", help="put this installed driver through its contract")
    group.addoption("--wharfie-settings", metavar="FILE", help="JSON: the driver's part of daemon.json")
    group.addoption(
        "--wharfie-parameter",
        metavar="NAME=JSON",
        action="append",
        default=[],
        help='what a test class would set, for example other_options=\'{"size": "1m"}\'',
    )
    group.addoption(
        "--wharfie-crash",
        choices=("all", "sample", "none"),
        default="sample",
        help="kill operations at all executed lines, at a sample of them (default), or not at all",
    )
    group.addoption(
        "--wharfie-isolated", action="store_true", help="the same rules with the driver in a process of its own"
    )


def pytest_configure(config: pytest.Config) -> None:
    if not (driver := config.getoption("--wharfie-driver")):
        return
    installed = importlib.import_module("wharfie.kit.installed")
    settings = config.getoption("--wharfie-settings")
    parameters = dict(pair.split("=", 1) for pair in config.getoption("--wharfie-parameter"))
    try:
        installed.choose(
            driver,
            json.loads(Path(settings).read_text()) if settings else {},
            {name: json.loads(value) for name, value in parameters.items()},
        )
    except (OSError, ValueError) as error:
        raise pytest.UsageError(f"--wharfie-driver {driver}: {error}") from error
    own = [str(Path(str(installed.__file__)))]
    config.args = [*config.args, *own] if config.args_source is pytest.Config.ArgsSource.ARGS else own


@pytest.fixture
def wharfie_kit(request: pytest.FixtureRequest) -> Callable[[type, Rule], None]:
    """Runs one rule of a contract's class in a room of its own, and notes what became of it."""
    from wharfie.kit.report import Report
    from wharfie.kit.running import run

    config = request.config
    report = config.stash.setdefault(REPORT, Report())

    def try_rule(contract: Any, made: Rule) -> None:
        options = config.getoption
        outcome = run(contract, made, crash=options("--wharfie-crash"), isolated=options("--wharfie-isolated"))
        report.add(contract, made, outcome)
        told = f"{made.id}: {made.sentence}\n{outcome.message}"
        if outcome.status == "failed":
            pytest.fail(f"{told}\n{outcome.detail}".rstrip(), pytrace=False)
        if outcome.status != "passed":
            pytest.skip(f"{outcome.status}: {outcome.message}")

    return try_rule


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a worker of pytest-xdist the report goes to the process that prints."""
    report = session.config.stash.get(REPORT, None)
    if report is not None and hasattr(session.config, "workeroutput"):
        session.config.workeroutput[_FROM_WORKER] = report.as_data()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """pytest-xdist: a worker has ended. One that crashed has nothing to tell."""
    if found := getattr(node, "workeroutput", {}).get(_FROM_WORKER):
        from wharfie.kit.report import Report

        node.config.stash.setdefault(REPORT, Report()).merge(found)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    report = config.stash.get(REPORT, None)
    if report is not None:
        terminalreporter.section("wharfie: conformance")
        for line in report.lines():
            terminalreporter.line(line)
