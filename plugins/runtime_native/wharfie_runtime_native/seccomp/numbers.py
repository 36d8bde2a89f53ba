"""System calls by name and number, from the table beside this module."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

COLUMNS: Final = ("x86_64", "x86", "x32", "aarch64")


def load_numbers() -> Mapping[str, Mapping[str, int]]:
    """The number of each name, by architecture; x32's without its bit 30."""
    numbers: dict[str, dict[str, int]] = {column: {} for column in COLUMNS}
    with open(os.path.join(os.path.dirname(__file__), "syscalls.txt"), encoding="ascii") as table:
        lines = table.read().splitlines()
    for line in lines:
        if not line.startswith("#"):
            name, *row = line.split()
            for column, number in zip(COLUMNS, row, strict=True):
                if number != "-":
                    numbers[column][name] = int(number)
    return numbers
