"""docs/writing-a-driver.md quotes the package that the tests build."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

from wharfie.plugins.contract import CONTRACTS, methods
from wharfie.plugins.settings import RESERVED, WORKERS
from wharfie.plugins.states import State
from wharfie.spi.volume import VolumeDriver

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "writing-a-driver.md").read_text()
CRASHES = (ROOT / "docs" / "surviving-crashes.md").read_text()
ACME = ROOT / "tests" / "strangers" / "wharfie-acme"


def test_every_quoted_block_is_in_the_file_that_it_names():
    blocks = re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 7
    for name, text in blocks:
        assert text in (ACME / name).read_text(), f"{name} has changed; the page still says:\n{text}"


def test_the_page_on_crashes_quotes_the_package_too():
    blocks = re.findall(r'^ *```\w+ title="([^"]+)"\n(.*?)^ *```$', CRASHES, re.MULTILINE | re.DOTALL)
    assert blocks
    for name, text in blocks:
        assert textwrap.indent(textwrap.dedent(text), "    ") in (ACME / name).read_text()


def test_figures_and_names_of_the_page_are_those_of_the_code():
    assert f"(`mount`: {methods(VolumeDriver)['mount'].deadline.total} seconds)" in PAGE
    assert f"how many calls run at once, {WORKERS}" in PAGE
    assert all(f"`{key}`" in PAGE for key in RESERVED)
    assert all(f".{kind}`" in PAGE for kind in CONTRACTS)
    rows = re.search(r"\| state \| meaning \|\n(.*)", PAGE, re.DOTALL)[1]
    named = {name for row in rows.splitlines()[1:] for name in row.split("|")[1].replace(",", " ").split()}
    assert named == {state.value for state in State}
    settings = json.loads(re.search(r'```json\n(\{ "drivers".*?)```', PAGE, re.DOTALL)[1])
    assert set(settings["drivers"]["volume.acme"]) == {"folder-mode", "deadlines"}
