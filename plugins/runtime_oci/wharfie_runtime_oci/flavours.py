"""How the binaries differ where their common command line (runc's) does not cover it. Data, by the name in `--version`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavour:
    """`sandbox`: the process on the host is the sandbox, not the program in it, so that signals go through the binary.
    `refuses_hybrid`: does not start where a cgroup2 is mounted beside version 1 controllers. `package`: Debian's."""

    package: str = ""
    sandbox: bool = False
    refuses_hybrid: bool = False


FLAVOURS: Final[Mapping[str, Flavour]] = {
    "runc": Flavour(package="runc"),
    "crun": Flavour(package="crun", refuses_hybrid=True),
    "runsc": Flavour(package="runsc", sandbox=True),
}
OTHER: Final = Flavour()
"""A binary of another name is taken to behave as runc does."""


def of(name: str) -> Flavour:
    """The flavour of the binary that calls itself `name`."""
    return FLAVOURS.get(name, OTHER)
