"""The documentation says what the code is: nothing is left out, nothing lags behind, no link leads nowhere."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from wharfie.cli.app import COMMANDS
from wharfie.daemon.flags import command as wharfied
from wharfie.daemon.keys import KEYS, Fate
from wharfie.plugins.contract import CONTRACTS
from wharfie.spi.hooks import HookSpecs

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", *ROOT.glob("plugins/*/README.md")])
sys.path.insert(0, str(ROOT / "scripts"))

import reference  # noqa: E402  # a script, not a package


def _name(page):
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def text():
    return "\n".join(page.read_text() for page in DOCS.rglob("*.md"))


@pytest.mark.parametrize("name", reference.PAGES)
def test_reference_pages_are_fresh(name):
    fresh = reference.PAGES[name]()
    assert (DOCS / name).read_text() == fresh, f"docs/{name} lags behind the code: run python scripts/reference.py"


def test_every_key_and_flag(text):
    missing = [key.name for key in KEYS if f"`{key.name}`" not in text]
    shown = [option for parameter in wharfied.params if not parameter.hidden for option in parameter.opts]
    missing += [option for option in shown if f"`{option}`" not in text]
    assert missing == []
    assert all(key.why for key in KEYS if key.fate is not Fate.SUPPORTED)


def test_every_command(text):
    assert [name for name in COMMANDS if f"## `wharfie {name}`" not in text] == []


def test_every_contract_method_and_hook(text):
    missing = []
    for contract in [*CONTRACTS.values(), HookSpecs]:
        for name, member in vars(contract).items():
            if callable(member) and not name.startswith("_") and f"### `{name}(" not in text:
                missing.append(f"{contract.__name__}.{name}")
    assert missing == []
    assert set(reference.CONTRACTS) == set(CONTRACTS)


def test_every_driver_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    missing = []
    for project in ROOT.glob("plugins/*/pyproject.toml"):
        described = tomllib.loads(project.read_text())["project"]
        for group, entries in described.get("entry-points", {}).items():
            names = [described["name"], *entries] if group.startswith("wharfie.") else []
            missing += [f"{group}: {name}" for name in names if name not in readme]
    assert missing == []


def test_what_is_not_there_yet_is_not_there():
    sentence = re.search(r"^Not there yet: .*?\.\n", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert sentence is not None
    served = [path for path in (ROOT / "core" / "wharfie" / "api").glob("*.py") if path.name != "inactive.py"]
    modules = "\n".join(path.read_text() for path in served)
    lagging = {}
    for words, path in (
        ("building images", '"/build"'),
        ("`commit`", '"/commit"'),
        ("`cp`", '/{ref}/archive"'),
        ("`export`", '/{ref}/export"'),
        ("`diff`", '/{ref}/changes"'),
        ("searching registries", '"/images/search"'),
    ):
        if (words in sentence[0]) == (path in modules):
            lagging[words] = path
    assert lagging == {}, "the README's list and the API's routes do not agree"


def test_every_decision_is_listed():
    index = (DOCS / "decisions" / "index.md").read_text()
    pages = {page.name for page in (DOCS / "decisions").glob("*.md")} - {"index.md"}
    assert {page for page in pages if f"({page})" not in index} == set()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page):
    content = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", content):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(target)
    assert broken == []


def _anchors(page):
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_nothing_of_one_machine(page):
    assert re.findall(r"/(?:work|home|tmp|mnt|Users)/\S*", page.read_text()) == []


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for page in PAGES for word in re.findall(r"^ {4}make ([a-z]+)", page.read_text(), re.MULTILINE)}
    assert named and named <= targets
