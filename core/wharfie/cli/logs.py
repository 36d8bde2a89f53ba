"""`wharfie logs`."""

from __future__ import annotations

import os

import click

from wharfie.cli import units
from wharfie.cli.context import Context, pass_context
from wharfie.cli.terminal import STDERR, STDOUT
from wharfie.client import frames


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option("-n", "--tail", default="all", help="How many of the last lines.")
@click.option("-t", "--timestamps", is_flag=True, help="With the time of each line.")
@click.option("--since", default="", help="From then on: a time, or 10m ago.")
@click.option("--until", default="", help="Up to then.")
@click.option("--details", is_flag=True, help="With labels, variables and tag of --log-opt.")
@click.argument("container")
@pass_context
def logs(
    context: Context, /, follow: bool, tail: str, timestamps: bool, since: str, until: str, details: bool, container: str
) -> None:
    """Show what a container has written.

    \b
    Example:
      wharfie logs -f --tail 20 web
    """
    client = context.client
    terminal = client.get(f"/containers/{container}/json")["Config"]["Tty"]
    query = {
        "stdout": True,
        "stderr": True,
        "follow": follow,
        "tail": tail,
        "timestamps": timestamps,
        "since": units.moment(since) if since else "",
        "until": units.moment(until) if until else "",
        "details": details,
    }
    response = client.open("GET", f"/containers/{container}/logs", query)
    demultiplexer = frames.Demultiplexer()
    for block in response.blocks():
        if terminal:
            _write(STDOUT, block)
            continue
        for stream, payload in demultiplexer.feed(block):
            _write(STDERR if stream == frames.STDERR else STDOUT, payload)
    response.connection.close()


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
