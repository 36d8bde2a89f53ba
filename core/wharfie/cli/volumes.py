"""`wharfie volume …`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click

from wharfie.cli import units
from wharfie.cli.context import Context, each, filters, pairs, pass_context
from wharfie.cli.system import inspect_all
from wharfie.cli.table import format_option, show

_BLOCK = 1 << 16
_END = bytes(1024)
"""Two empty blocks: the end of every tar archive that is whole (POSIX, pax)."""
_COLUMNS = {"Driver": "DRIVER", "Name": "VOLUME NAME"}


@click.group()
def volume() -> None:
    """Manage volumes: folders that outlive containers."""


@volume.command()
@click.option("-d", "--driver", default="", help="Volume driver (the engine's default).")
@click.option("-o", "--opt", multiple=True, help="Option of the driver: NAME=VALUE.")
@click.option("--label", multiple=True, help="NAME=VALUE.")
@click.argument("name", default="")
@pass_context
def create(context: Context, /, driver: str, opt: tuple[str, ...], label: tuple[str, ...], name: str) -> None:
    """Make a volume; without NAME an anonymous one.

    \b
    Examples:
      wharfie volume create data
      wharfie volume create -o type=tmpfs -o device=tmpfs -o o=size=64m scratch
    """
    body = {"Name": name, "Driver": driver, "DriverOpts": pairs(opt), "Labels": pairs(label)}
    print(context.client.post("/volumes/create", body)["Name"])


@volume.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
@click.option("-f", "--filter", "filter_", multiple=True, help="KEY=VALUE: dangling, driver, label, name.")
@format_option
@pass_context
def list_(context: Context, /, quiet: bool, filter_: tuple[str, ...], template: str) -> None:
    """List volumes.

    \b
    Example:
      wharfie volume ls --filter dangling=true
    """
    answer = context.client.get("/volumes", {"filters": filters(filter_)})
    for warning in answer.get("Warnings") or ():
        click.echo(f"WARNING: {warning}", err=True)
    found = sorted(answer["Volumes"] or [], key=lambda entry: entry["Name"])
    if quiet:
        for entry in found:
            print(entry["Name"])
        return
    show(found, _COLUMNS, template)


@volume.command()
@click.option("-f", "--format", "template", default="", help="'json' or a template.")
@click.argument("names", nargs=-1, required=True)
@pass_context
def inspect(context: Context, /, template: str, names: tuple[str, ...]) -> int:
    """Show everything about volumes.

    \b
    Example:
      wharfie volume inspect --format '{{.Mountpoint}}' data
    """
    return inspect_all(context.client, names, ("volumes",), template)


@volume.command()
@click.option("-f", "--force", is_flag=True, help="Say nothing of one that is not there.")
@click.argument("names", nargs=-1, required=True)
@pass_context
def rm(context: Context, /, force: bool, names: tuple[str, ...]) -> int:
    """Remove volumes with their data.

    \b
    Example:
      wharfie volume rm data
    """
    return each(names, lambda name: context.client.delete(f"/volumes/{name}", {"force": force}))


@volume.command()
@click.option("-a", "--all", "all_", is_flag=True, help="Named ones too.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--filter", "filter_", multiple=True, help="KEY=VALUE: label.")
@pass_context
def prune(context: Context, /, all_: bool, force: bool, filter_: tuple[str, ...]) -> None:
    """Remove volumes that no container uses.

    \b
    Example:
      wharfie volume prune -f
    """
    what = "all" if all_ else "anonymous"
    if not force and not click.confirm(
        f"WARNING! This will remove {what} volumes not used by at least one container. Continue?"
    ):
        return
    wanted = (*filter_, "all=true") if all_ else filter_
    done = context.client.post("/volumes/prune", query={"filters": filters(wanted)})
    if done["VolumesDeleted"]:
        print("Deleted Volumes:", *done["VolumesDeleted"], "", sep="\n")
    print(f"Total reclaimed space: {units.human_size(done['SpaceReclaimed'], digits=4)}")


@volume.command("export")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write this file, once it is whole.")
@click.option("--no-pause", is_flag=True, help="Let containers that have the volume go on meanwhile.")
@click.argument("name")
@pass_context
def export(context: Context, /, output: Path | None, no_pause: bool, name: str) -> None:
    """Write all of a volume as a tar archive, to stdout without --output.

    Running containers that have the volume are paused meanwhile, so that the archive is of one moment.

    \b
    Example:
      wharfie volume export -o data.tar data
    """
    if output is None and sys.stdout.isatty():
        raise click.ClickException("the archive is not written to a terminal: use -o FILE, or a pipe")
    response = context.client.open("GET", f"/wharfie/volumes/{name}/archive", {"pause": "0" if no_pause else "1"})
    with contextlib.closing(response.connection), _whole(output) as archive:
        tail = b""
        for block in response.blocks():
            archive.write(block)
            tail = (tail + block)[-len(_END) :]
        if tail != _END:
            raise click.ClickException(f"the archive of volume {name} was cut off: see the daemon's log")


@volume.command("import")
@click.option(
    "-i", "--input", "input_", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Read this file."
)
@click.option("-d", "--driver", default="", help="Volume driver of a new volume (the engine's default).")
@click.argument("name")
@pass_context
def import_(context: Context, /, input_: Path | None, driver: str, name: str) -> None:
    """Fill a new or empty volume from a tar archive, compressed or not; from stdin without --input.

    \b
    Example:
      wharfie volume import -i data.tar data
    """
    if input_ is None and sys.stdin.isatty():
        raise click.ClickException("the archive is not read from a terminal: use -i FILE, or a pipe")
    with open(input_, "rb") if input_ is not None else sys.stdin.buffer as archive:
        response = context.client.open(
            "PUT",
            f"/wharfie/volumes/{name}/archive",
            {"driver": driver},
            body=iter(lambda: archive.read(_BLOCK), b""),
            headers={"Content-Type": "application/x-tar"},
        )
    with contextlib.closing(response.connection):
        response.read()
    print(name)


@contextlib.contextmanager
def _whole(output: Path | None) -> Iterator[IO[bytes]]:
    """A file that gets its name only when all of it is written; stdout without a name."""
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = output.with_name(f"{output.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(output)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
