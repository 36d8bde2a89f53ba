"""The options of the file drivers: what `--log-opt` may say, and what that means to the sink.

Names, units and messages are those of Docker Engine (documentation of the json-file and local logging drivers).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from wharfie.spi.driver import ContainerFacts, Strings
from wharfie.spi.errors import DriverError, InvalidArgument

KNOWN = frozenset(
    ("max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size")
)
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))
_TAG_FIELD = re.compile(r"\{\{\s*(.*?)\s*\}\}")
_TAG_FIELDS: Mapping[str, Callable[[ContainerFacts], str]] = {
    ".ID": lambda facts: facts.id[:12],
    ".FullID": lambda facts: facts.id,
    ".Name": lambda facts: facts.name,
    ".ImageID": lambda facts: facts.image_id.removeprefix("sha256:")[:12],
    ".ImageFullID": lambda facts: facts.image_id,
    ".ImageName": lambda facts: facts.image,
    ".DaemonName": lambda facts: "docker",
    ".Hostname": lambda facts: facts.hostname,
    ".Command": lambda facts: " ".join(facts.command),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """How a driver's files are rotated. `max_size` in bytes, 0: no limit."""

    max_size: int
    max_file: int
    compress: bool


def check_names(options: Strings, message: str) -> None:
    """`message` has one place for the name. Errors: InvalidArgument."""
    for name in options:
        if name not in KNOWN:
            raise InvalidArgument(message.format(name))
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidArgument(f"logger: logging mode not supported: {mode} (it can be blocking or non-blocking)")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        size("max-buffer-size", options["max-buffer-size"], unit=1024)


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


def attributes(container: ContainerFacts, options: Strings) -> dict[str, str]:
    """The labels and variables that the options choose, and the tag. Errors: InvalidArgument (a bad expression)."""
    chosen: dict[str, str] = {}
    variables = dict(entry.partition("=")[::2] for entry in container.env)
    for option, source in (("labels", container.labels), ("env", variables)):
        names = [name.strip() for name in options.get(option, "").split(",") if name.strip()]
        chosen.update((name, source[name]) for name in names if name in source)
        if expression := options.get(f"{option}-regex", ""):
            try:
                pattern = re.compile(expression)
            except re.error as error:
                raise InvalidArgument(f"invalid value for {option}-regex: {expression!r}: {error}") from None
            chosen.update((name, value) for name, value in source.items() if pattern.search(name))
    if options.get("tag"):
        chosen["tag"] = tag(container, options["tag"])
    return dict(sorted(chosen.items()))


def tag(container: ContainerFacts, template: str) -> str:
    """Fill in `{{.Name}}` and its like. Errors: InvalidArgument (an unknown field)."""

    def field(match: re.Match[str]) -> str:
        value = _TAG_FIELDS.get(match[1])
        if value is None:
            known = ", ".join(f"{{{{{name}}}}}" for name in _TAG_FIELDS)
            raise InvalidArgument(f"invalid value for tag: {match[0]} is not known; use one of {known}")
        return value(container)

    return _TAG_FIELD.sub(field, template)


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


def folder(container: ContainerFacts) -> Path:
    """The container's folder. Errors: DriverError (the core gave none)."""
    if container.folder is None:
        raise DriverError(f"container {container.id[:12]} has no folder for its log")
    return container.folder


def size(option: str, text: str, unit: int = 1000) -> int:
    """Bytes from "10m". Errors: InvalidArgument."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"invalid value for {option}: invalid size: '{text}' (examples: 500k, 10m, 1g)")
    return int(float(match[1]) * unit ** _POWER[match[2].lower()])


def boolean(option: str, text: str) -> bool:
    """Go's spelling of truth. Errors: InvalidArgument."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise InvalidArgument(f"invalid boolean value for {option}: {text!r} (it can be true or false)")
