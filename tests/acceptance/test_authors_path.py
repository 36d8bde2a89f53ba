"""A new author's path, exactly as docs/writing-a-driver.md says: in an empty folder, with nothing but pip.

The commands are taken from the page, run one after the other in one shell, and what they print is compared with the page.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness import Daemon, import_busybox

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "writing-a-driver.md").read_text()
NEEDED = ("storage_overlay", "runtime_native", "net_bridge", "net_host", "ipam_default", "volume_local", "log_files")
PATIENCE = 280
pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(PATIENCE * 2)]


@dataclass(frozen=True)
class Step:
    """A command of the page and the lines that it is to print; "..." stands for any."""

    command: str
    output: tuple[str, ...]


def steps() -> list[Step]:
    found = []
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *output = part.rstrip("\n").split("\n")
            found.append(Step(command, tuple(output)))
    return found


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with Wharfie in it, from wheels, as an operator has it."""
    folder = tmp_path_factory.mktemp("fresh")
    wheels, venv = folder / "wheels", folder / "venv"
    members = [ROOT / "core", *(ROOT / "plugins" / name for name in NEEDED)]
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", str(wheels), *map(str, members)], check=True, timeout=PATIENCE)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, timeout=PATIENCE)
    install = [str(venv / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", *map(str, wheels.glob("*.whl"))]
    constraints = ["-c", str(ROOT / "constraints.txt")]
    subprocess.run([*install, *constraints], check=True, timeout=PATIENCE)
    return venv


class Installed(Daemon):
    """The daemon of that environment."""

    venv: Path

    def command(self) -> list[str]:
        return [str(self.venv / "bin" / "wharfied"), *super().command()[1:]]


@pytest.fixture
def daemon(environment: Path, tmp_path: Path) -> Iterator[Daemon]:
    made = Installed(tmp_path / "daemon")
    made.venv = environment
    with contextlib.ExitStack() as stack:
        stack.callback(made.close)
        made.start()
        import_busybox(made)
        yield made


def test_the_page_is_true(environment: Path, daemon: Daemon, tmp_path: Path):
    folder = tmp_path / "empty"
    folder.mkdir()
    variables = {key: value for key, value in daemon.environment.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    variables |= {"PATH": f"{environment / 'bin'}:{os.environ['PATH']}", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    [chosen] = re.findall(r'^```json\n(\{ "default-volume-driver".*?)^```$', PAGE, re.MULTILINE | re.DOTALL)
    done = steps()
    assert [step.command.split()[0] for step in done].count("docker") >= 4 and len(done) >= 8
    for step in done:
        if step.command.startswith("docker") and "default-volume-driver" not in daemon.config:
            daemon.config |= json.loads(chosen)
            daemon.stop()
            daemon.start()
        words = step.command.split()
        if words[0] == "cd":
            folder = folder / words[1]
            continue
        result = subprocess.run(
            ["bash", "-c", step.command],
            cwd=folder,
            env=variables,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert result.returncode == 0, f"{step.command}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
        _compare(step, result.stdout)
    assert json.loads(daemon.docker("volume", "inspect", "data"))[0]["Driver"] == "acme"


def _compare(step: Step, output: str) -> None:
    """The page's lines are in the output, in order; without "..." they are all of it."""
    lines = [" ".join(line.split()) for line in output.splitlines()]
    wanted = [" ".join(line.split()) for line in step.output if line != "..."]
    if step.output and "..." not in step.output:
        assert lines == wanted, f"{step.command} printed\n{output}"
    rest = iter(lines)
    assert all(line in rest for line in wanted), f"{step.command} printed\n{output}"
