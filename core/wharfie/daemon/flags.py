"""The command line of `wharfied`: one option for each key of daemon.json, made from the table of keys."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from wharfie.daemon import config
from wharfie.daemon.checks import check_configuration
from wharfie.daemon.keys import KEYS, Fate, Key, Kind
from wharfie.spi.errors import InvalidArgument, WharfieError

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def _pairs(values: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise ValueError(f'"{value}": expected NAME=VALUE')
        pairs[name] = text
    return pairs


def _runtimes(values: tuple[str, ...]) -> dict[str, dict[str, str]]:
    return {name: {"path": path} for name, path in _pairs(values).items()}


def _pools(values: tuple[str, ...]) -> list[dict[str, Any]]:
    pools = []
    for value in values:
        parts = _pairs(tuple(value.split(",")))
        if parts.keys() != {"base", "size"} or not parts["size"].isdecimal():
            raise ValueError(f'"{value}": expected base=CIDR,size=N')
        pools.append({"base": parts["base"], "size": int(parts["size"])})
    return pools


def _ulimits(values: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    limits = {}
    for name, value in _pairs(values).items():
        soft, _, hard = value.partition(":")
        try:
            limits[name] = {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}
        except ValueError:
            raise ValueError(f'"{name}={value}": expected NAME=SOFT[:HARD]') from None
    return limits


def _network_options(values: tuple[str, ...]) -> dict[str, dict[str, str]]:
    options: dict[str, dict[str, str]] = {}
    for value in values:
        driver, equals, option = value.partition("=")
        if not equals:
            raise ValueError(f'"{value}": expected DRIVER=OPTION=VALUE')
        options.setdefault(driver, {}).update(_pairs((option,)))
    return options


_FORMS: Mapping[str, Callable[[tuple[str, ...]], Any]] = {
    "runtimes": _runtimes,
    "default-address-pools": _pools,
    "default-ulimits": _ulimits,
    "default-network-opts": _network_options,
}


def _reader(key: Key) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """From what click has parsed to what the file would have said."""

    def read(_: click.Context, parameter: click.Parameter, value: Any) -> Any:
        if value is None or value == ():
            return None
        try:
            if key.kind is Kind.PAIRS:
                return _pairs(value)
            if key.kind is Kind.OBJECT:
                return _FORMS[key.name](value)
        except ValueError as error:
            raise click.BadParameter(str(error), param=parameter) from None
        return list(value) if key.kind is Kind.TEXTS else value

    return read


def _option(key: Key) -> click.Option:
    names = [key.name.replace("-", "_"), key.option, *([key.short] if key.short else [])]
    shared: dict[str, Any] = {
        "help": key.help,
        "hidden": key.fate is not Fate.SUPPORTED,
        "callback": _reader(key),
        "default": None,
    }
    match key.kind:
        case Kind.SWITCH:
            return click.Option(names, type=bool, is_flag=False, flag_value=True, metavar="", **shared)
        case Kind.NUMBER:
            return click.Option(names, type=int, **shared)
        case Kind.TEXT:
            return click.Option(names, **shared)
    return click.Option(names, multiple=True, **shared)


def _run(config_file: Path | None, validate: bool, **flags: Any) -> None:
    given = {name.replace("_", "-"): value for name, value in flags.items() if value is not None}

    def load() -> tuple[config.DaemonConfig, list[str]]:
        path = config_file or config.DEFAULT_FILE
        found = config.read_file(path, required=config_file is not None)
        return config.load(found, given, where=str(path) if found else "")

    try:
        settings, warnings = load()
        if validate:
            check_configuration(settings)
            for warning in warnings:
                click.echo(f"warning: {warning}", err=True)
            click.echo("configuration OK")
            return
        from wharfie.daemon.run import run  # what is wrong with the configuration is said before the engine is imported

        status = run(load, config_file or config.DEFAULT_FILE)
    except InvalidArgument as error:
        click.echo(error.message, err=True)
        sys.exit(1)
    except WharfieError as error:
        click.echo(f"failed to start daemon: {error.message}", err=True)
        sys.exit(1)
    sys.exit(status)


command = click.Command(
    "wharfied",
    callback=_run,
    context_settings=_CONTEXT,
    help="A container engine that speaks the Docker Engine API. Options are the keys of daemon.json.",
    params=[
        click.Option(
            ["--config-file"],
            type=click.Path(path_type=Path),
            help=f"Configuration file  [default: {config.DEFAULT_FILE}]",
        ),
        click.Option(["--validate"], is_flag=True, help="Validate the configuration and exit"),
        *(_option(key) for key in KEYS if key.option),
    ],
)
click.version_option(version("wharfie"), "-v", "--version", message="Wharfie version %(version)s")(command)
