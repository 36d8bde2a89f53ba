"""Packages by strangers: `wharfie-acme`, as an outside author ships it, and `hostile`, that does all that it must not."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

STRANGERS = Path(__file__).parent


def build_wheel(folder: Path, target: Path) -> None:
    """Build the project in `folder` as a wheel and install that into `target`, which then goes on PYTHONPATH.

    Nothing is fetched: the build backend (hatchling) must be installed, and dependencies are not looked at.
    """
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as wheels:
        build = ["wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", wheels, str(folder)]
        subprocess.run([*pip, *build], check=True)
        [wheel] = Path(wheels).glob("*.whl")
        subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)], check=True)
