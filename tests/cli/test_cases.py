"""The transcripts of `cases/`, by the stock docker command line on a daemon of their own (see `scripts/compare.py`)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import Daemon, running

CASES = Path(__file__).with_name("cases")
SCRIPT = Path(__file__).parents[2] / "scripts" / "compare.py"
_RECORDED_WITH = 28
"""The command line's major version: its own messages, and the flags that it has, are in the transcripts."""


@pytest.fixture(scope="module")
def emptied(tmp_path_factory):
    """A daemon that may be emptied, with networks of a size that does not run out."""
    version = subprocess.run(["docker", "--version"], capture_output=True, check=True, text=True).stdout
    found = re.search(r"version (\d+)", version)
    if found is None or int(found[1]) < _RECORDED_WITH:
        pytest.skip(f"the transcripts are of docker {_RECORDED_WITH}, this is {version.strip()}")
    with running(Daemon(tmp_path_factory.mktemp("cases"))) as daemon:
        yield daemon


@pytest.mark.parametrize("name", sorted(path.stem for path in CASES.glob("*.case")))
def test_case(emptied, name):
    result = subprocess.run(
        [sys.executable, SCRIPT, "--ours", f"unix://{emptied.socket}", "--only", name],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_flag_has_a_case():
    """No command of containers, networks, volumes, images and the system, and none of their flags, is left out."""
    result = subprocess.run([sys.executable, SCRIPT, "--coverage"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")
