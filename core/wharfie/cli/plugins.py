"""`wharfie plugin …`: drivers and plugins, from a new package to the calls of a running one (Wharfie's own commands)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from wharfie.cli.context import Context, pass_context
from wharfie.cli.scaffold import KINDS, NAME, scaffold
from wharfie.cli.table import format_option, render, show, table
from wharfie.client.errors import Unreachable

_COLUMNS = {
    "Kind": "KIND",
    "Name": "NAME",
    "Version": "VERSION",
    "Distribution": "DISTRIBUTION",
    "Enabled": "ENABLED",
    "State": "STATE",
    "Cause": "CAUSE",
}
_WIDEST = 60  # of a cause in the table; `inspect` and `doctor` say all of it
_config_file = click.option(
    "--config-file",
    type=click.Path(),
    default="",
    help="The daemon's file, where no daemon answers  [/etc/wharfie/daemon.json]",
)


@click.group()
def plugin() -> None:
    """Show, mend, make drivers and plugins. They are installed with pip and chosen by name in daemon.json."""


@plugin.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="KIND.NAME only.")
@format_option
@pass_context
def list_(context: Context, /, quiet: bool, template: str) -> None:
    """List the drivers that the engine found, with their state and what is wrong with one.

    \b
    Example:
      wharfie plugin ls --format json
    """
    rows = sorted(context.client.get("/wharfie/plugins"), key=lambda entry: (entry["Kind"], entry["Name"]))
    if quiet:
        for row in rows:
            print(f"{row['Kind']}.{row['Name']}")
        return
    wrong = any(row["Cause"] for row in rows)
    if template == "table":
        rows = [row | {"Enabled": str(row["Enabled"]).lower(), "Cause": _cut(row["Cause"])} for row in rows]
    show(rows, _COLUMNS, template)
    if template == "table" and wrong:
        print("`wharfie plugin doctor` says what mends it.", file=sys.stderr)


@plugin.command()
@click.argument("driver")
@click.option("-f", "--format", "template", default="", help="'json' or a template such as '{{.State}}'.")
@pass_context
def inspect(context: Context, /, driver: str, template: str) -> None:
    """Show everything about DRIVER (KIND.NAME): settings, deadlines, figures, users, debts.

    \b
    Example:
      wharfie plugin inspect volume.local
    """
    found = context.client.get(f"/wharfie/plugins/{driver}")
    print(render(found, template) if template else _described(found), end="\n" if template else "")


@plugin.command()
@click.option("-f", "--format", "template", default="", help="'json' for the findings as a list.")
@_config_file
@pass_context
def doctor(context: Context, /, template: str, config_file: str) -> int:
    """Say what is wrong with drivers and plugins, with the command that mends it. Exit code 1 when something is.

    Works without a running engine, too: then it looks at what the engine would find.

    \b
    Example:
      wharfie plugin doctor
    """
    try:
        found = context.client.get("/wharfie/doctor")
    except Unreachable:
        print("No engine answers; this is what it would find at its start.", file=sys.stderr)
        found = json.loads(_wharfied("doctor", "--json", config_file=config_file))
    if template:
        print(render(found, template))
    else:
        for one in sorted(found, key=lambda finding: not finding["Wrong"]):
            print(f"{'wrong' if one['Wrong'] else 'note '}  {one['Subject']}: {one['What']}")
            print(f"       {'run:  ' + one['Command'] if one['Command'] else one['Fix']}")
        if not found:
            print("Nothing is wrong.")
    return int(any(one["Wrong"] for one in found))


@plugin.command()
@click.argument("driver")
@_config_file
@pass_context
def enable(context: Context, /, driver: str, config_file: str) -> None:
    """Let DRIVER (KIND.NAME, or a plugin's name) be used again.

    \b
    Example:
      wharfie plugin enable volume.acme
    """
    _switch(context, driver, "enable", config_file)


@plugin.command()
@click.argument("driver")
@_config_file
@pass_context
def disable(context: Context, /, driver: str, config_file: str) -> None:
    """Let nobody use DRIVER (KIND.NAME, or a plugin's name). One in use goes on until the engine is restarted.

    \b
    Example:
      wharfie plugin disable network.macvlan
    """
    _switch(context, driver, "disable", config_file)


@plugin.command()
@click.argument("driver")
@pass_context
def trace(context: Context, /, driver: str) -> None:
    """Show the calls into DRIVER (KIND.NAME) as they end: method, object, milliseconds, result. Ctrl-C ends it.

    \b
    Example:
      wharfie plugin trace network.bridge
    """
    response = context.client.open("GET", f"/wharfie/plugins/{driver}/trace")
    try:
        for line in response.lines():
            seen = json.loads(line)
            result = f"{seen['Class']}: {seen['Error']}" if seen["Class"] else "ok"
            print(f"{seen['Method']:<16} {seen['Object'][:24]:<24} {seen['Milliseconds']:>10.3f} ms  {result}", flush=True)
    finally:
        response.connection.close()


@plugin.command()
@click.argument("kind", type=click.Choice(KINDS), metavar="KIND")
@click.argument("name")
@click.option("-d", "--directory", type=click.Path(path_type=Path), help="Where to put it  [wharfie-NAME]")
def new(kind: str, name: str, directory: Path | None) -> None:
    """Write a new driver: a complete package that works and passes its own tests, to be changed from there.

    KIND is one of volume, network, ipam, log, authz, storage; NAME is what users will type.

    \b
    Example:
      wharfie plugin new volume acme
      cd wharfie-acme && pip install -e '.[test]' && pytest
    """
    if not NAME.fullmatch(name):
        raise click.BadParameter(
            f"{name!r}: use small letters, digits and dashes, beginning with a letter", param_hint="NAME"
        )
    folder = directory or Path(f"wharfie-{name}")
    if folder.exists() and any(folder.iterdir()):
        raise click.ClickException(f"{folder} is there already and not empty; --directory names another place")
    for path in scaffold(kind, name, folder):
        print(path)
    print(f"\nNext: cd {folder} && pip install -e '.[test]' && pytest", file=sys.stderr)


def _switch(context: Context, driver: str, verb: str, config_file: str) -> None:
    try:
        answer = context.client.post(f"/wharfie/plugins/{driver}/{verb}")
    except Unreachable:
        print(_wharfied(verb, driver, config_file=config_file), end="")
        return
    print(f"{driver} is {verb}d in {answer['File']}" if answer["Changed"] else f"{driver} was {verb}d already")
    if answer["RestartNeeded"]:
        print("It takes effect at the next start of the engine: it is in use now.", file=sys.stderr)


def _wharfied(*words: str, config_file: str) -> str:
    """What the daemon's program says without a daemon: it has the daemon's environment. Errors: ClickException."""
    more = ["--config-file", config_file] if config_file else []
    command = [sys.executable, "-m", "wharfie.daemon", *words, *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1) or (done.returncode and not done.stdout):
        raise click.ClickException(done.stderr.strip() or f"{' '.join(command)} ended with {done.returncode}")
    return done.stdout


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _described(found: Mapping[str, Any]) -> str:
    lines = [
        ("Driver", f"{found['Kind']}.{found['Name']}"),
        ("Distribution", f"{found['Distribution']} {found['Version']}".strip()),
        ("State", found["State"]),
        ("Contract", f"{found['Spi'] or '?'} (this core: {found['CoreSpi']})"),
        (
            "Process",
            f"of its own, pid {found['Pid']}, {found['Restarts']} restarts" if found["Isolated"] else "the engine's",
        ),
        (
            "Capabilities",
            "known when it is open" if found["Capabilities"] is None else ", ".join(found["Capabilities"]) or "none",
        ),
        ("Used by", ", ".join(found["UsedBy"]) or "nobody"),
    ]
    if found["Cause"]:
        lines += [("Cause", found["Cause"]), ("Remedy", found["Remedy"])]
    if found["Circuit"]:
        circuit = found["Circuit"]
        lines.append(
            ("Circuit", f"open, probed in {circuit['ProbeIn']:.0f} s: {circuit['Cause']}" if circuit["Open"] else "closed")
        )
    lines += [("Leak", leak) for leak in found["Leaks"]]
    parts = ["".join(f"{title + ':':<14} {value}\n" for title, value in lines)]
    parts += [_titled("Settings", _settings(found["Settings"]))]
    figures = [
        [name, str(one["Calls"]), str(one["Failures"]), f"{one['Seconds']:.3f}"] for name, one in found["Methods"].items()
    ]
    parts += [_titled("Calls", [["METHOD", "CALLS", "FAILURES", "SECONDS"], *figures] if figures else [])]
    parts += [_titled("Deadlines", [["METHOD", "LIMIT"], *([name, limit] for name, limit in found["Deadlines"].items())])]
    debts = [[debt["Method"], debt["Object"], str(debt["Tries"]), debt["Error"]] for debt in found["Debts"]]
    parts += [_titled("Debts", [["METHOD", "OBJECT", "TRIES", "ERROR"], *debts] if debts else [])]
    return "\n".join(part for part in parts if part)


def _titled(title: str, lines: Sequence[Sequence[str]]) -> str:
    return f"{title}\n{table(lines)}" if lines else ""


def _settings(schema: Mapping[str, Any] | None) -> list[list[str]]:
    """A JSON Schema as a table; the whole of it is in `--format json`."""
    if not schema or "properties" not in schema:
        return []
    required = schema.get("required", ())
    rows = [["KEY", "TYPE", "DEFAULT", "MEANING"]]
    for key, about in schema["properties"].items():
        kind = about.get("type") or " or ".join(one.get("type", "?") for one in about.get("anyOf", ())) or "object"
        default = "required" if key in required else json.dumps(about.get("default"))
        rows.append([key, kind, default, about.get("description", "")])
    return rows
