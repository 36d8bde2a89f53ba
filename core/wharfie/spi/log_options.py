"""The log options that every log driver of Docker has: which labels and variables go along, the tag, blocking or not.

For the daemon's side of log drivers (`LogDriver.plan`). Names, units and messages are those of Docker Engine (documentation
of its logging drivers).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from wharfie.spi import sizes
from wharfie.spi.driver import ContainerFacts, Strings
from wharfie.spi.errors import InvalidArgument
from wharfie.spi.outflow import DEFAULT_LIMIT

COMMON = frozenset(("labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size"))
"""Options that all drivers of Docker know."""

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


def check_names(options: Strings, known: frozenset[str], message: str) -> None:
    """Only `known` options, and the common ones with sense. `message` has one place for a name. Errors: InvalidArgument."""
    for name in options:
        if name not in known:
            raise InvalidArgument(message.format(name))
    check_mode(options)


def check_mode(options: Strings) -> None:
    """`mode` and `max-buffer-size`. Errors: InvalidArgument."""
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidArgument(f"logger: logging mode not supported: {mode} (it can be blocking or non-blocking)")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        size("max-buffer-size", options["max-buffer-size"], unit=1024)


def buffer_size(options: Strings) -> int:
    """Bytes that a sink with a buffer keeps. Errors: InvalidArgument."""
    return size("max-buffer-size", options["max-buffer-size"], unit=1024) if "max-buffer-size" in options else DEFAULT_LIMIT


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


def size(option: str, text: str, unit: int = 1000) -> int:
    """Bytes from "10m". Errors: InvalidArgument."""
    try:
        return sizes.parse(text, unit)
    except ValueError as error:
        raise InvalidArgument(f"invalid value for {option}: {error}") from None


def boolean(option: str, text: str) -> bool:
    """Go's spelling of truth. Errors: InvalidArgument."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise InvalidArgument(f"invalid boolean value for {option}: {text!r} (it can be true or false)")
