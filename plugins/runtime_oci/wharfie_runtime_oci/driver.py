"""The drivers `runc`, `crun` and `runsc`, and the class of those that daemon.json names: the house's shim with an engine
that drives a binary."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from wharfie.shim import cgroups
from wharfie.shim.driver import ShimRuntime
from wharfie.spi.driver import Context, Problem
from wharfie.spi.errors import DriverError
from wharfie.spi.runtime import RuntimeCapability
from wharfie_runtime_oci import flavours
from wharfie_runtime_oci.bundle import INIT_PROGRAMS
from wharfie_runtime_oci.settings import OciSettings

_VERSION_SECONDS = 10.0
_NOT_OF_A_SANDBOX = frozenset({RuntimeCapability.UPDATE, RuntimeCapability.TOP, RuntimeCapability.RESOLVER})
"""What needs the container's processes, or its network's loopback, to be the host kernel's."""


class OciRuntime(ShimRuntime):
    """Any OCI binary. Classes for single names differ in nothing but the name."""

    spi: ClassVar[str] = "1.0"
    settings: ClassVar[str] = "wharfie_runtime_oci.settings:OciSettings"
    engine: ClassVar[str] = "wharfie_runtime_oci.engine:OciEngine"

    def __init__(self, context: Context, settings: OciSettings) -> None:
        super().__init__(context, settings)
        self._wanted = settings.path or self.name
        self._arguments = tuple(settings.runtime_args)
        self._home = context.run / ".oci"  # no container's name begins with a dot
        self._program = ""
        self._flavour = self._version = ""

    def engine_options(self) -> Mapping[str, Any]:
        return {
            "program": self._program,
            "arguments": self._arguments,
            "flavour": self._flavour,
            "root": str(self._home / "state"),
            "bundles": str(self._home / "bundles"),
            "init": next(filter(None, map(shutil.which, INIT_PROGRAMS)), ""),
        }

    def capabilities(self) -> frozenset[RuntimeCapability]:
        offered = super().capabilities()
        return offered - _NOT_OF_A_SANDBOX if flavours.of(self._flavour).sandbox else offered

    def check(self) -> Sequence[Problem]:
        problems = list(super().check())
        if shutil.which(self._wanted) is None:
            package = flavours.of(self._wanted).package
            where = "is not there, or not executable" if "/" in self._wanted else "is not in PATH"
            problems.append(
                Problem(
                    what=f'the program "{self._wanted}" {where}',
                    fix=(f"apt-get install {package}, or " if package else "")
                    + f'name the program in daemon.json: "runtimes": {{"{self.name}": {{"path": "/…"}}}}',
                )
            )
        if not cgroups.mounted():
            problems.append(Problem(what="no control groups are mounted at /sys/fs/cgroup", fix="mount a cgroup2 there"))
        return problems

    def open(self) -> None:
        """Errors: DriverError (the program is no OCI runtime)."""
        self._program = shutil.which(self._wanted) or self._wanted
        self._flavour, self._version = self._ask_version()
        super().open()
        for name in ("state", "bundles"):
            (self._home / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def _ask_version(self) -> tuple[str, str]:
        """What the program calls itself, and its version: `runc version 1.1.5`."""
        try:
            answer = subprocess.run(
                [self._program, "--version"], capture_output=True, text=True, timeout=_VERSION_SECONDS, check=False
            )
            first = (answer.stdout.splitlines() or [""])[0].split()
        except (OSError, subprocess.SubprocessError) as error:
            raise DriverError(f"{self._program} --version cannot be run: {error}") from error
        if answer.returncode != 0 or len(first) < 3 or first[1] != "version":
            raise DriverError(
                f'{self._program} is no OCI runtime: its --version says {" ".join(first)!r}, not "NAME version …"'
            )
        return first[0], first[2]

    def close(self) -> None:
        super().close()
        cgroups.prune(cgroups.DEFAULT_PARENT)

    def probe(self) -> None:
        self._ask_version()

    def status(self) -> Sequence[tuple[str, str]]:
        return (("Program", self._program), ("Version", f"{self._flavour} {self._version}"))


class RuncDriver(OciRuntime):
    """runc, the reference runtime and Docker's own."""

    name: ClassVar[str] = "runc"


class CrunDriver(OciRuntime):
    """crun, in C."""

    name: ClassVar[str] = "crun"


class RunscDriver(OciRuntime):
    """runsc, gVisor: programs run on a kernel in user space."""

    name: ClassVar[str] = "runsc"
