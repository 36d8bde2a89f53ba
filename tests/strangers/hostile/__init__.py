"""Distributions that do what they must not, and one that behaves. `install` puts them into a folder for sys.path.

Each is a `*.dist-info` folder, as pip leaves it, over the modules in `drivers/`, which become the package
`hostile_drivers`.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Stranger:
    """One distribution with one entry point."""

    distribution: str
    name: str
    value: str  # in hostile_drivers
    group: str = "wharfie.volume"
    version: str = "1.0"
    requires: str = "wharfie>=0.1,<1"


STRANGERS = (
    Stranger("wharfie-good", "good", "good:Good"),
    Stranger("wharfie-importerror", "importerror", "importerror:Driver"),
    Stranger("wharfie-uninstalled", "uninstalled", "nosuchmodule:Driver"),
    Stranger("wharfie-noattribute", "noattribute", "good:Missing"),
    Stranger("wharfie-exits", "exits", "exits:Driver"),
    Stranger("wharfie-slowimport", "slowimport", "slowimport:Driver"),
    Stranger("wharfie-constructor", "constructor", "lifecycle:Constructor"),
    Stranger("wharfie-constructor-exits", "constructor-exits", "lifecycle:ConstructorExits"),
    Stranger("wharfie-unfit", "unfit", "lifecycle:Unfit"),
    Stranger("wharfie-checkfails", "checkfails", "lifecycle:CheckFails"),
    Stranger("wharfie-checklies", "checklies", "lifecycle:CheckLies"),
    Stranger("wharfie-openfails", "openfails", "lifecycle:OpenFails"),
    Stranger("wharfie-openhangs", "openhangs", "lifecycle:OpenHangs"),
    Stranger("wharfie-closefails", "closefails", "lifecycle:CloseFails"),
    Stranger("wharfie-hangs", "hangs", "methods:Hangs"),
    Stranger("wharfie-raises", "raises", "methods:Raises"),
    Stranger("wharfie-nextmajor", "nextmajor", "contracts:NextMajor"),
    Stranger("wharfie-nextminor", "nextminor", "contracts:NextMinor"),
    Stranger("wharfie-nospi", "nospi", "contracts:NoSpi"),
    Stranger("wharfie-abstract", "abstract", "contracts:Abstract"),
    Stranger("wharfie-misnamed", "misnamed", "contracts:Misnamed"),
    Stranger("wharfie-wrongkind", "wrongkind", "contracts:WrongKind"),
    Stranger("wharfie-nodriver", "nodriver", "contracts:NO_DRIVER"),
    Stranger("wharfie-coroutine", "coroutine", "contracts:Coroutine"),
    Stranger("wharfie-settings", "settings", "settings:Configured"),
    Stranger("wharfie-nomodel", "nomodel", "settings:NoModel"),
    Stranger("wharfie-exhausts", "exhausts", "greedy:Exhausts"),
    Stranger("wharfie-closes-stdin", "closes-stdin", "greedy:ClosesStdin"),
    Stranger("wharfie-leaks", "leaks", "greedy:Leaks"),
    Stranger("wharfie-raises-everywhere", "raises-everywhere", "greedy:RaisesEverywhere"),
    Stranger("wharfie-crashes", "crashes", "crashes:Crashes"),
    Stranger("wharfie-crash-import", "crash-import", "crash_import:Driver"),
    Stranger("wharfie-crash-open", "crash-open", "crashes:CrashOpen"),
    # The next three must be refused without an import: their module notes that it was imported.
    Stranger("wharfie-future", "future", "mustnotload:Driver", requires="wharfie>=99"),
    Stranger("wharfie-garbled", "garbled", "mustnotload:Driver", requires="wharfie =>!! 1"),
    Stranger("wharfie-twice-a", "twice", "mustnotload:Driver"),
    Stranger("wharfie-twice-b", "twice", "mustnotload:Driver", version="2.0"),
)

HOOKS = (
    Stranger("wharfie-hook-good", "hook-good", "hook_good", group="wharfie.plugins"),
    Stranger("wharfie-hook-second", "hook-second", "hook_second:PLUGIN", group="wharfie.plugins"),
    Stranger("wharfie-hook-raises", "hook-raises", "hook_raises", group="wharfie.plugins"),
    Stranger("wharfie-hook-exits", "hook-exits", "exits", group="wharfie.plugins"),
    Stranger("wharfie-hook-misspelt", "hook-misspelt", "hook_bad:MISSPELT", group="wharfie.plugins"),
    Stranger("wharfie-hook-coroutine", "hook-coroutine", "hook_bad:COROUTINE", group="wharfie.plugins"),
    Stranger("wharfie-hook-argument", "hook-argument", "hook_bad:ARGUMENT", group="wharfie.plugins"),
    Stranger("wharfie-hook-class", "hook-class", "hook_bad:Coroutine", group="wharfie.plugins"),
    Stranger("wharfie-hook-settings", "hook-settings", "hook_settings:PLUGIN", group="wharfie.plugins"),
    Stranger("wharfie-hook-empty", "hook-empty", "good", group="wharfie.plugins"),
)


def install(target: Path, *strangers: Stranger) -> None:
    """Install distributions into `target`; all drivers when none are named."""
    shutil.copytree(Path(__file__).parent / "drivers", target / "hostile_drivers", dirs_exist_ok=True)
    for stranger in strangers or STRANGERS:
        info = target / f"{stranger.distribution.replace('-', '_')}-{stranger.version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {stranger.distribution}\nVersion: {stranger.version}\n"
            f"Requires-Dist: pydantic>=2.6\nRequires-Dist: {stranger.requires}\n"
        )
        (info / "entry_points.txt").write_text(f"[{stranger.group}]\n{stranger.name} = hostile_drivers.{stranger.value}\n")
