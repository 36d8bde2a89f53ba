"""`make bench` measures every figure, writes it down for programs, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.mark.parametrize(
    ("script", "options", "example"),
    [
        ("bench.py", (), "API start"),
        ("bench_images.py", ("--files", "20", "--listed", "3"), "push of it"),
        ("bench_runtimes.py", (), "delete --force"),
        (
            "bench_networks.py",
            ("--networks", "10", "--endpoints", "20", "--ports", "20", "--turns", "1"),
            "endpoints joined",
        ),
        ("bench_streams.py", ("--part", "0.02"), "cp of 2000 files in"),
    ],
)
def test_every_figure(tmp_path, script, options, example):
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:  # short, for there will be sockets in it
        _check(Path(folder), tmp_path, script, options, example)


def _check(folder, tmp_path, script, options, example):
    found = tmp_path / "found.json"
    result = subprocess.run(
        [sys.executable, SCRIPTS / script, *options, "--rounds", "1", "--engine", "wharfie", "--json", found],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        timeout=100,
        check=False,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    document = json.loads(found.read_text())
    figures = document["engines"]["wharfie"]
    assert figures.keys() == document["units"].keys()
    assert all(figure["median"] > 0 for figure in figures.values())
    assert example in result.stdout
    assert list(folder.iterdir()) == []
