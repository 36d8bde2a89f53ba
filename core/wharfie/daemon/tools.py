"""`wharfied doctor`, `enable`, `disable`: what can be said and done about drivers without a running daemon.

They read the daemon's own configuration file and run in its environment, so they see what the daemon will see.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from wharfie.daemon import config
from wharfie.daemon.checks import driver_settings
from wharfie.daemon.mapping import engine_settings
from wharfie.engine.host import host_facts
from wharfie.engine.plugins import ALWAYS, named
from wharfie.plugins.doctor import Finding, examine
from wharfie.plugins.drivers import Drivers
from wharfie.plugins.switch import set_disabled
from wharfie.spi.errors import WharfieError

_FILE = click.option(
    "--config-file",
    type=click.Path(path_type=Path),
    default=config.DEFAULT_FILE,
    show_default=True,
    help="The daemon's configuration file.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def tools() -> None:
    """Look after the drivers of a daemon that does not run."""


@tools.command()
@_FILE
@click.option("--json", "as_json", is_flag=True, help="A JSON list instead of sentences.")
def doctor(config_file: Path, as_json: bool) -> None:
    """Say what is wrong with the installed drivers, and what mends it; exit 1 when something is."""
    found = _examine(config_file)
    rows = [_row(one) for one in found]
    if as_json:
        click.echo(json.dumps(rows))
    else:
        for row in rows:
            click.echo(f"{row['Subject']}: {row['What']}\n    {row['Fix']}")
    sys.exit(any(one.wrong for one in found))


def _row(one: Finding) -> dict[str, Any]:
    return {"Subject": one.subject, "What": one.what, "Fix": one.fix, "Command": one.command, "Wrong": one.wrong}


def _examine(path: Path) -> list[Finding]:
    try:
        chosen, _ = config.load(config.read_file(path, required=False), {}, where=str(path))
        settings = driver_settings(chosen)
        facts = host_facts()
    except WharfieError as error:
        return [Finding(subject="daemon.json", what=error.message, fix=f"Correct {path}")]

    with tempfile.TemporaryDirectory() as scratch:
        # A driver's `check` may look at the file system that it will have; where there is none yet, none is made.
        root = Path(chosen.data_root)
        root = root if root.is_dir() else Path(scratch)

        async def look() -> list[Finding]:
            drivers = Drivers(
                settings,
                state=root,
                run=Path(scratch) / "run",
                instance="00000000",
                host=facts,
            )
            await drivers.start()
            engine = engine_settings(chosen, "00000000")
            needed = {*named(engine, engine.storage_driver or "overlay2"), *ALWAYS}
            needed |= {(kind, name) for kind, _, name in (key.partition(".") for key in settings.drivers)}
            found = await examine(drivers, needed)
            await drivers.close()
            return found

        return asyncio.run(look())


@tools.command()
@click.argument("driver")
@_FILE
def enable(driver: str, config_file: Path) -> None:
    """Take DRIVER (KIND.NAME, or a plugin's name) out of `disabled-plugins`."""
    _switch(driver, config_file, disabled=False)


@tools.command()
@click.argument("driver")
@_FILE
def disable(driver: str, config_file: Path) -> None:
    """Put DRIVER (KIND.NAME, or a plugin's name) into `disabled-plugins`."""
    _switch(driver, config_file, disabled=True)


def _switch(driver: str, path: Path, *, disabled: bool) -> None:
    try:
        changed = set_disabled(path, driver, disabled=disabled)
    except WharfieError as error:
        click.echo(error.message, err=True)
        sys.exit(1)
    state = "disabled" if disabled else "enabled"
    click.echo(f"{driver} is {state} in {path}" if changed else f"{driver} was {state} already in {path}")
