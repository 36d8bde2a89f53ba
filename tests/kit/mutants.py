"""Wrong drivers: each is a toy with one piece of its text replaced, and breaks one rule."""

from __future__ import annotations

import functools
import importlib
import sys
import textwrap
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wharfie import kit

TOYS = Path(__file__).with_name("toys")
sys.path.append(str(TOYS))  # for sinks, which are imported by name


@dataclass(frozen=True)
class Wrong:
    """`changes`: pairs of the toy's text and what takes its place. `parameters`: of the contract's class. `also`: rules
    that cannot but see the same fault."""

    rule: str
    changes: tuple[tuple[str, str], ...]
    parameters: dict[str, Any] = field(default_factory=dict)
    also: tuple[str, ...] = ()


def wrong(rule: str, *changes: str, **parameters: Any) -> Wrong:
    """Changes come in pairs: what is there, what is to be there."""
    return Wrong(rule, tuple(zip(changes[::2], changes[1::2], strict=True)), parameters)


def override(rule: str, body: str, *, also: str = "", **parameters: Any) -> Wrong:
    """What takes the place of `# here` in a toy that is a class derived from one of our drivers."""
    return Wrong(rule, (("    # here\n", textwrap.indent(textwrap.dedent(body), "    ")),), parameters, tuple(also.split()))


@functools.cache
def wrongs(kind: str) -> tuple[Wrong, ...]:
    return importlib.import_module(f"tests.kit.wrong.{kind}").WRONG


def toy_class(kind: str, folder: Path, change: Wrong | None = None) -> type:
    """A contract's class for the kind's toy, as it is or with a change, written to a file of its own in `folder`."""
    text = (TOYS / f"{kind}.py").read_text()
    for old, new in change.changes if change else ():
        assert text.count(old) == 1, f"{change.rule}: the toy has {text.count(old)} times {old!r}"
        text = text.replace(old, new)
    name = f"toy_{kind}_{change.rule.lower().replace('-', '_') if change else 'right'}"
    path = folder / f"{name}.py"
    path.write_text(text)
    module = types.ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    exec(compile(text, str(path), "exec"), module.__dict__)
    contract = getattr(kit, f"{kind.capitalize()}Contract")
    parameters = {**getattr(module, "PARAMETERS", {}), **(change.parameters if change else {})}
    return type(f"Test_{name}", (contract,), {"driver": lambda context: module.Toy(context, None), **parameters})
