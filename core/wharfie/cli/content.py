"""`wharfie content …`: the blobs of images as they came, by digest (Wharfie's own commands)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import click

from wharfie.cli import units
from wharfie.cli.context import Context, pass_context
from wharfie.cli.table import format_option, show

_COLUMNS = {"Digest": "DIGEST", "Kind": "KIND", "Size": "SIZE", "Images": "IMAGES"}


@click.group()
def content() -> None:
    """Look at the blobs that images are made of, and mend damaged ones."""


@content.command("ls")
@click.option("--no-trunc", is_flag=True, help="Whole digests.")
@format_option
@pass_context
def list_(context: Context, /, no_trunc: bool, template: str) -> None:
    """List manifests, configurations and layers, and what is left of downloads.

    \b
    Example:
      wharfie content ls --no-trunc
    """
    rows = context.client.get("/wharfie/content")
    if template == "table":
        rows = [
            {
                "Digest": row["Digest"] if no_trunc else row["Digest"].removeprefix("sha256:")[:12],
                "Kind": row["Kind"],
                "Size": "missing" if row["Size"] is None else units.human_size(row["Size"]),
                "Images": ", ".join(row["Images"]),
            }
            for row in rows
        ]
    show(rows, _COLUMNS, template)


@content.command()
@pass_context
def verify(context: Context, /) -> int:
    """Read every blob and say which are damaged; the exit status is 1 then.

    \b
    Example:
      wharfie content verify
    """
    return _look(context.client.messages("POST", "/wharfie/content/verify"))


@content.command()
@pass_context
def repair(context: Context, /) -> int:
    """Verify, and fetch damaged blobs from the registry that their image came from. The exit status is 1 when one is left.

    \b
    Example:
      wharfie content repair
    """
    return _look(context.client.messages("POST", "/wharfie/content/repair"))


def _look(messages: Iterable[Mapping[str, Any]]) -> int:
    left = 0
    for message in messages:
        if "status" in message:
            print(f"{message['id']}: {message['status']}", file=sys.stderr)
        found = message.get("aux")
        if found is not None:
            left = sum(1 for blob in found["Damaged"] if not blob["Repaired"])
            repaired = len(found["Damaged"]) - left
            more = f", {repaired} repaired" if repaired else ""
            print(f"{found['Blobs']} blobs, {units.human_size(found['Bytes'])}: {left or 'none'} damaged{more}")
    return int(left > 0)
