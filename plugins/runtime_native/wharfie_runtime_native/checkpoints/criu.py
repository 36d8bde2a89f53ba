"""The program criu: where it is, and what its words mean."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from wharfie.spi.errors import DriverError, Unsupported, WharfieError
from wharfie_runtime_native.constants import PR_SET_PDEATHSIG
from wharfie_runtime_native.syscalls import prctl

COMMON: Final = (
    "-v4",
    # The control group is made by `create`: criu and what it brings back are in it from the beginning.
    "--manage-cgroups=ignore",
    "--file-locks",
)
_CHECK_SECONDS: Final = 30.0
_ERROR: Final = re.compile(r"^(?:\([0-9.]+\))?(?: |pie:|\d+:)*Error \([^)]*\): (?P<text>.+)$", re.MULTILINE)
_SIDE_EFFECTS: Final = ("tun:", "rlimit:", "exited, status", "Dumping FAILED", "Restoring FAILED")
"""What criu also says when all goes well, or says last and without a reason."""


def find() -> str:
    """The program's path. Errors: Unsupported."""
    program = shutil.which("criu")
    if program is None:
        raise Unsupported(
            "checkpoints are made by criu, which is not installed (it is in no folder of the daemon's PATH): install it "
            "(Debian: criu, or criu.org)"
        )
    return program


def run(program: str, words: Sequence[str], log: Path) -> None:
    """Errors: as `explain`."""
    result = subprocess.run(
        [program, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, 9),  # there is one thread
        check=False,
    )
    if result.returncode:
        raise explain(program, words[0], log)


def explain(program: str, what: str, log: Path) -> WharfieError:
    """Why it failed: this host, as `criu check` says, else the first error in its log."""
    check = subprocess.run([program, "check"], capture_output=True, text=True, timeout=_CHECK_SECONDS, check=False)
    if check.returncode:
        return Unsupported(
            f"criu {version(program)} ({program}) does not work on this host, Linux {os.uname().release}: "
            f"{_first_error(check.stderr + check.stdout)} (see: criu check); install a version that knows this kernel"
        )
    try:
        text = log.read_text("utf-8", "replace")
    except OSError:
        text = ""
    return DriverError(f"criu {what} failed: {_first_error(text)}")


def version(program: str) -> str:
    """As it says it, "unknown" when it says none."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=_CHECK_SECONDS, check=False)
    found = re.search(r"Version: (\S+)", said.stdout)
    return found[1] if found else "unknown"


def _first_error(text: str) -> str:
    """The reason: what follows it in a log are its consequences."""
    found = [match["text"].strip() for match in _ERROR.finditer(text)]
    return next((line for line in found if not line.startswith(_SIDE_EFFECTS)), "it gives no reason")
