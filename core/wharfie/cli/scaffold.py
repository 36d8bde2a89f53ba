"""A new driver's package from the templates beside this module.

A template is the file that it becomes, with `@NAME@` (what users type), `@MODULE@` (the package to import) and `@CLASS@`
for names, and `.in` at the end of its own name so that nobody takes it for a source of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

TEMPLATES = Path(__file__).with_name("templates")
KINDS = ("volume", "network", "ipam", "log", "authz", "storage")
NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


def scaffold(kind: str, name: str, folder: Path) -> Iterator[Path]:
    """Write the package into `folder`; the files as they are written. `name` fits NAME."""
    module = "wharfie_" + name.replace("-", "_")
    words = {
        "NAME": name,
        "KIND": kind,
        "MODULE": module,
        "CLASS": "".join(part.capitalize() for part in name.split("-")),
        "LETTER": name[0],
        "CONTRACT": kind.capitalize() + "Contract",
    }
    files = {}
    for source in [*(TEMPLATES / "common").rglob("*.in"), *(TEMPLATES / kind).rglob("*.in")]:
        place = source.relative_to(TEMPLATES).parts[1:]
        files[folder.joinpath(*(module if part == "package" else part for part in place)).with_suffix("")] = source
    for target, source in sorted(files.items()):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_filled(source.read_text(), words))
        yield target


def _filled(text: str, words: Mapping[str, str]) -> str:
    return re.sub(r"@([A-Z]+)@", lambda match: words[match[1]], text)
