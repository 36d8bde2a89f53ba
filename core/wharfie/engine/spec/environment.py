"""Variables of a process, put together from several places."""

from __future__ import annotations

from collections.abc import Sequence


def merge_environment(base: Sequence[str], more: Sequence[str]) -> list[str]:
    """`more` replaces by name; a name without "=" removes (as Docker does with `-e NAME` for an unset variable)."""
    values = {entry.partition("=")[0]: entry for entry in base}
    for entry in more:
        name, has_value, _ = entry.partition("=")
        if has_value:
            values[name] = entry
        else:
            values.pop(name, None)
    return list(values.values())
