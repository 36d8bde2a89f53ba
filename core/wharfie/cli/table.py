"""Output: Docker's tables, JSON lines, and templates of plain fields."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

MINIMUM, PADDING = 10, 3  # of a column, as in Docker's tables
_FIELD = re.compile(r"\{\{\s*(json\s+)?\.?([\w.]*)\s*\}\}")

Row = Mapping[str, Any]


def format_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--format` as list commands have it."""
    return click.option(
        "--format", "template", default="table", help="'table', 'json', or a template such as '{{.Name}}'."
    )(command)


def show(rows: Iterable[Row], columns: Mapping[str, str], template: str) -> None:
    """Print rows. `columns`: field → heading, what a table shows; `json` and templates may use every field of a row."""
    if template in ("", "table"):
        lines = [list(columns.values()), *([str(row[field]) for field in columns] for row in rows)]
        sys.stdout.write(table(lines))
        return
    for row in rows:
        print(render(row, template))


def table(lines: Sequence[Sequence[str]]) -> str:
    """Columns at least ten wide with three blanks between them; the last one is not padded."""
    widths = [max(MINIMUM, *(len(cell) + PADDING for cell in column)) for column in zip(*lines, strict=True)]
    widths[-1] = 0
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )


def render(value: Any, template: str) -> str:
    """A template with `{{.Field}}`, `{{.Field.Part}}` and `{{json .Field}}`; `json` for the whole. Errors: BadParameter."""
    if template == "json":
        return _json(value)

    def field(match: re.Match[str]) -> str:
        found = value
        for part in filter(None, match[2].split(".")):
            if not isinstance(found, Mapping) or part not in found:
                raise click.BadParameter(f"there is no field {part!r} here", param_hint="--format")
            found = found[part]
        return _json(found) if match[1] else _plain(found)

    text = _FIELD.sub(field, template.removeprefix("table "))
    if "{{" in text:
        raise click.BadParameter(
            "wharfie understands {{.Field}}, {{.Field.Part}} and {{json .Field}}; use `--format json` with jq for more",
            param_hint="--format",
        )
    return text.replace("\\t", "\t").replace("\\n", "\n")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> str:
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{' '.join(map(_plain, value))}]"
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{key}:{_plain(part)}' for key, part in sorted(value.items()))}]"
    return str(value)
