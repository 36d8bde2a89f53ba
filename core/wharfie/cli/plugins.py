"""`wharfie plugin …`: what is installed, and in what state it is (Wharfie's own, not in Docker's API)."""

from __future__ import annotations

import sys

import click

from wharfie.cli.context import Context, pass_context
from wharfie.cli.table import format_option, show

_COLUMNS = {"Kind": "KIND", "Name": "NAME", "Distribution": "DISTRIBUTION", "Version": "VERSION", "State": "STATE"}


@click.group()
def plugin() -> None:
    """Show drivers and plugins. They are installed with pip and chosen by name in daemon.json."""


@plugin.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="KIND.NAME only.")
@format_option
@pass_context
def list_(context: Context, /, quiet: bool, template: str) -> None:
    """List the drivers that the engine found, with their state; what is wrong with one is said below the table.

    \b
    Example:
      wharfie plugin ls --format json
    """
    rows = sorted(context.client.get("/wharfie/plugins"), key=lambda entry: (entry["Kind"], entry["Name"]))
    if quiet:
        for row in rows:
            print(f"{row['Kind']}.{row['Name']}")
        return
    show(rows, _COLUMNS, template)
    if template == "table":
        for row in rows:
            if row.get("Cause"):
                remedy = f"; {row['Remedy']}" if row.get("Remedy") else ""
                print(f"{row['Kind']}.{row['Name']}: {row['Cause']}{remedy}", file=sys.stderr)
