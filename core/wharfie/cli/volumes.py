"""`wharfie volume …`."""

from __future__ import annotations

import click

from wharfie.cli import units
from wharfie.cli.context import Context, each, filters, pairs, pass_context
from wharfie.cli.system import inspect_all
from wharfie.cli.table import format_option, show

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
