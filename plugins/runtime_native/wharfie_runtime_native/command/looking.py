"""state, list, ps, features: what there is."""

from __future__ import annotations

import json
from typing import Final

import click

from wharfie.shim.cgroups import open_reader
from wharfie.spi.errors import DriverError
from wharfie_runtime_native.command.containers import record_of, state_of, states
from wharfie_runtime_native.command.session import Session

_FORMAT: Final = click.Choice(["table", "json"])
_COLUMNS: Final = ("id", "pid", "status", "bundle", "created", "owner")


@click.command("state")
@click.argument("id")
@click.pass_obj
def state_command(session: Session, id: str) -> None:
    """Print a container's state as JSON."""
    folder = session.store.find(id)
    try:
        click.echo(json.dumps(state_of(folder), indent=2))
    finally:
        folder.close()


@click.command("list")
@click.option("-f", "--format", type=_FORMAT, default="table", show_default=True)
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@click.pass_obj
def list_command(session: Session, format: str, quiet: bool) -> None:
    """List the containers below --root."""
    if quiet:
        for name in session.store.ids():
            click.echo(name)
        return
    found = states(session.store)
    if format == "json":
        click.echo(json.dumps(found))
        return
    rows = [[column.upper() for column in _COLUMNS], *([str(state[column]) for column in _COLUMNS] for state in found)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(_COLUMNS))]
    for row in rows:
        click.echo("   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


@click.command("ps", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-f", "--format", type=_FORMAT, default="table", show_default=True)
@click.argument("id")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def ps_command(session: Session, format: str, id: str, options: tuple[str, ...]) -> None:
    """Show a container's processes, by the host's pids. OPTIONS are ps(1)'s, -ef if there are none."""
    folder = session.store.find(id)
    try:
        pids = sorted(open_reader(record_of(folder).cgroup).pids())
    finally:
        folder.close()
    if format == "json":
        click.echo(json.dumps(pids))
        return
    for line in _select(_ps(options or ("-ef",)), pids):
        click.echo(line)


def _ps(options: tuple[str, ...]) -> list[str]:
    import subprocess  # for a person at a terminal; engines want JSON

    try:
        done = subprocess.run(["ps", *options], capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError:
        raise DriverError("there is no ps(1) on this host; `ps --format json` needs none") from None
    if done.returncode:
        raise DriverError(f"ps {' '.join(options)}: {done.stderr.strip()}")
    return done.stdout.splitlines()


def _select(lines: list[str], pids: list[int]) -> list[str]:
    """The head of a table of ps(1) and the lines of these processes. Errors: DriverError (no column PID)."""
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise DriverError("the output of ps has no column PID")
    column, wanted = titles.index("PID"), {str(pid) for pid in pids}
    kept = [lines[0]]
    for line in lines[1:]:
        fields = line.split(None, column + 1)
        if len(fields) > column and fields[column] in wanted:
            kept.append(line)
    return kept


@click.command("features")
def features_command() -> None:
    """Print what this runtime can do (runtime-spec, features.md)."""
    from wharfie_runtime_native.features import features  # none of its tables is for the other commands

    click.echo(json.dumps(features(), indent=2))
