"""Dockerfile instructions that change an image's configuration (`docker import --change`; Dockerfile reference)."""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Callable, Mapping, Sequence

from wharfie.engine import digits
from wharfie.engine.model.config import Config, HealthConfig
from wharfie.spi.errors import InvalidArgument

_SHELL = ["/bin/sh", "-c"]
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_NAME_BLANK_VALUE = re.compile(r"(\S+)\s+(.+)", re.DOTALL)
_DURATION = re.compile(r"(\d{1,18}(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_NANOSECONDS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_HEALTH_TIMES = {
    "interval": "interval",
    "timeout": "timeout",
    "start-period": "start_period",
    "start-interval": "start_interval",
}


def apply(config: Config, changes: Sequence[str]) -> Config:
    """A new configuration; each change is one instruction. Errors: InvalidArgument naming the instruction."""
    changed = config.model_copy(deep=True)
    for change in changes:
        for line in filter(None, map(str.strip, change.splitlines())):
            word, _, rest = line.partition(" ")
            instruction = _INSTRUCTIONS.get(word.upper())
            if instruction is None:
                known = ", ".join(sorted(_INSTRUCTIONS))
                raise InvalidArgument(f"{word.upper()} is not a valid change command: want one of {known}")
            if not rest.strip():
                raise InvalidArgument(f"{word.upper()} requires at least one argument")
            instruction(changed, rest.strip())
    return changed


def _json_words(text: str) -> list[str] | None:
    """The exec form, `["a", "b"]`; None when it is something else."""
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None


def _command(text: str) -> list[str]:
    words = _json_words(text)
    return [*_SHELL, text] if words is None else words


def _words(text: str, instruction: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidArgument(f"{instruction} {text}: {error}") from None


def _pairs(text: str, instruction: str) -> dict[str, str]:
    """`a=b c="d e"`, or the old form `name the whole rest`."""
    first = text.split(None, 1)[0]
    if "=" not in first:
        match = _NAME_BLANK_VALUE.fullmatch(text)
        if match is None:
            raise InvalidArgument(f"{instruction} must have two arguments")
        return {match[1]: match[2]}
    pairs = {}
    for word in _words(text, instruction):
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise InvalidArgument(f"Syntax error - can't find = in {word!r}. Must be of the form: name=value")
        pairs[name] = value
    return pairs


def _cmd(config: Config, text: str) -> None:
    config.cmd = _command(text)


def _entrypoint(config: Config, text: str) -> None:
    config.entrypoint = _command(text)


def _env(config: Config, text: str) -> None:
    env = dict(pair.partition("=")[::2] for pair in config.env or ())
    env.update(_pairs(text, "ENV"))
    config.env = [f"{name}={value}" for name, value in env.items()]


def _label(config: Config, text: str) -> None:
    config.labels = {**config.labels, **_pairs(text, "LABEL")}


def _expose(config: Config, text: str) -> None:
    ports = dict(config.exposed_ports or {})
    for word in _words(text, "EXPOSE"):
        match = _PORT.fullmatch(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if match is None or not 0 < first <= last <= 65535:
            raise InvalidArgument(f"invalid containerPort: {word}")
        protocol = (match[3] or "tcp").lower()
        ports.update({f"{port}/{protocol}": {} for port in range(first, last + 1)})
    config.exposed_ports = ports


def _on_build(config: Config, text: str) -> None:
    word = text.split(None, 1)[0].upper()
    if word == "ONBUILD":
        raise InvalidArgument("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if word in ("MAINTAINER", "FROM"):
        raise InvalidArgument(f"{word} isn't allowed as an ONBUILD trigger")
    config.on_build = [*(config.on_build or []), text]


def _user(config: Config, text: str) -> None:
    config.user = text


def _volume(config: Config, text: str) -> None:
    words = _json_words(text)
    volumes = _words(text, "VOLUME") if words is None else words
    if not volumes or not all(volume.strip() for volume in volumes):
        raise InvalidArgument("VOLUME specified can not be an empty string")
    config.volumes = {**(config.volumes or {}), **{volume.strip(): {} for volume in volumes}}


def _workdir(config: Config, text: str) -> None:
    config.working_dir = posixpath.normpath(posixpath.join("/", config.working_dir, text))


def _stop_signal(config: Config, text: str) -> None:
    config.stop_signal = text


def _health_check(config: Config, text: str) -> None:
    health = HealthConfig()
    while text.startswith("--"):
        option, _, text = text.partition(" ")
        text = text.strip()
        name, _, value = option[2:].partition("=")
        if name == "retries" and (retries := digits.number(value)) is not None:
            health.retries = retries
        elif name in _HEALTH_TIMES and _DURATION.sub("", value) == "" and value:
            length = sum(int(float(number) * _NANOSECONDS[unit]) for number, unit in _DURATION.findall(value))
            setattr(health, _HEALTH_TIMES[name], length)
        else:
            raise InvalidArgument(f"HEALTHCHECK: the option {option} is unknown or has no such value")
    kind, _, rest = text.partition(" ")
    rest = rest.strip()
    if kind.upper() == "NONE" and not rest:
        health.test = ["NONE"]
    elif kind.upper() == "CMD" and rest:
        words = _json_words(rest)
        health.test = ["CMD-SHELL", rest] if words is None else ["CMD", *words]
    else:
        raise InvalidArgument(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    config.healthcheck = health


_INSTRUCTIONS: Mapping[str, Callable[[Config, str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _health_check,
    "LABEL": _label,
    "ONBUILD": _on_build,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
