"""`wharfie plugin new`: each kind's package is whole, typed, and within its contract."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.strangers import build_wheel
from wharfie.cli.scaffold import KINDS, scaffold

ROOT = Path(__file__).parents[2]


def new(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("wharfie")), "plugin", "new", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_the_package_has_all_that_an_author_needs(tmp_path: Path):
    done = new("volume", "acme-two", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    package = "wharfie-acme-two/wharfie_acme_two"
    assert made == {
        "wharfie-acme-two/pyproject.toml",
        "wharfie-acme-two/README.md",
        "wharfie-acme-two/tests/test_contract.py",
        f"{package}/__init__.py",
        f"{package}/driver.py",
        f"{package}/settings.py",
    }
    assert set(done.stdout.split()) == made
    assert not any("@" in (tmp_path / name).read_text() for name in made if not name.endswith("driver.py"))
    again = new("volume", "acme-two", cwd=tmp_path)
    assert again.returncode == 1 and "there already" in again.stderr


@pytest.mark.parametrize("words", [("volumes", "x"), ("volume", "Big"), ("volume", "a/b"), ("volume", "-x"), ("volume",)])
def test_bad_words_make_nothing(words, tmp_path: Path):
    assert new(*words, cwd=tmp_path).returncode != 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_typed_and_clean(kind: str, tmp_path: Path):
    list(scaffold(kind, "acme-two", tmp_path))
    environment = {**os.environ, "MYPYPATH": f"{ROOT / 'core'}:{tmp_path}"}
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "E,F,I,UP,B", str(tmp_path)]
    subprocess.run(ruff, check=True)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(ROOT / ".mypy_cache"), "wharfie_acme_two"]
    done = subprocess.run(mypy, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_passes_its_own_tests_at_once(kind: str, tmp_path: Path):
    list(scaffold(kind, "acme-two", tmp_path / "package"))
    build_wheel(tmp_path / "package", tmp_path / "site")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(
        command, cwd=tmp_path / "package", env=environment, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "conforms to 1.0" in done.stdout
