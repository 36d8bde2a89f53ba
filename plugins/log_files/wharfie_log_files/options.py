"""The options of the file drivers: what `--log-opt` may say, and what that means to the sink.

Names, units and messages are those of Docker Engine (documentation of the json-file and local logging drivers).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wharfie.spi.driver import ContainerFacts, Strings
from wharfie.spi.errors import DriverError, InvalidArgument
from wharfie.spi.log_options import COMMON, boolean, size

KNOWN = COMMON | {"max-size", "max-file", "compress"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """How a driver's files are rotated. `max_size` in bytes, 0: no limit."""

    max_size: int
    max_file: int
    compress: bool


def rotation(options: Strings, default: Rotation) -> Rotation:
    """Errors: InvalidArgument naming the option."""
    max_size = default.max_size
    if (text := options.get("max-size", "-1")) != "-1":
        max_size = size("max-size", text)
        if max_size <= 0:
            raise InvalidArgument("max-size must be a positive number")
    max_file = default.max_file
    if "max-file" in options:
        try:
            max_file = int(options["max-file"])
        except ValueError:
            raise InvalidArgument(f"invalid value for max-file: {options['max-file']}: it has to be a number") from None
        if max_file < 1:
            raise InvalidArgument("max-file cannot be less than 1")
    compress = default.compress
    if "compress" in options:
        compress = boolean("compress", options["compress"])
        if compress and (max_file == 1 or not max_size):
            raise InvalidArgument("compress cannot be true when max-file is less than 2 or max-size is not set")
    return Rotation(max_size=max_size, max_file=max_file, compress=compress and max_file > 1)


def sink_options(path: Path, rotation: Rotation, attributes: Mapping[str, str]) -> dict[str, str]:
    """What `plan` answers: plain strings for the sink, and for the reader in a later daemon."""
    options = {
        "path": str(path),
        "max-size": str(rotation.max_size),
        "max-file": str(rotation.max_file),
        "compress": "true" if rotation.compress else "false",
    }
    if attributes:
        options["attrs"] = json.dumps(attributes, ensure_ascii=False, separators=(",", ":"))
    return options


def rotates(options: Strings) -> bool:
    """Whether files of a log with these planned options are ever rotated."""
    return options["max-size"] != "0"


def folder(container: ContainerFacts) -> Path:
    """The container's folder. Errors: DriverError (the core gave none)."""
    if container.folder is None:
        raise DriverError(f"container {container.id[:12]} has no folder for its log")
    return container.folder
