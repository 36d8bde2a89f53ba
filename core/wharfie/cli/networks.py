"""`wharfie network …`."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import click

from wharfie.cli.context import Context, each, filters, pairs, pass_context
from wharfie.cli.system import inspect_all
from wharfie.cli.table import format_option, show
from wharfie.client import ApiError

_COLUMNS = {"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE"}


@click.group()
def network() -> None:
    """Manage networks. Containers on one network find each other by name."""


@network.command()
@click.option("-d", "--driver", default="", help="Network driver (the engine's default).")
@click.option("-o", "--opt", multiple=True, help="Option of the driver: NAME=VALUE.")
@click.option("--subnet", multiple=True, help="CIDR; one for each address family.")
@click.option("--gateway", multiple=True, help="Address, in the order of the subnets.")
@click.option("--ip-range", multiple=True, help="CIDR to give addresses from, in the order of the subnets.")
@click.option("--aux-address", multiple=True, help="NAME=ADDRESS that must not be given away.")
@click.option("--ipam-driver", default="default", help="Address management driver.")
@click.option("--ipam-opt", multiple=True, help="Option of the IPAM driver: NAME=VALUE.")
@click.option("--internal", is_flag=True, help="Without a way out.")
@click.option("--attachable", is_flag=True, help="Containers may join by hand.")
@click.option("--ipv6", is_flag=True, help="With IPv6.")
@click.option("--label", multiple=True, help="NAME=VALUE.")
@click.argument("name")
@pass_context
def create(context: Context, /, name: str, **flags: Any) -> None:
    """Make a network; prints its id.

    \b
    Examples:
      wharfie network create front
      wharfie network create --subnet 10.9.0.0/24 --gateway 10.9.0.1 back
    """
    pools = [
        {"Subnet": subnet, "Gateway": gateway or "", "IPRange": addresses or ""}
        for subnet, gateway, addresses in zip_longest(flags["subnet"], flags["gateway"], flags["ip_range"])
    ]
    if any(not pool["Subnet"] for pool in pools):
        raise click.UsageError("--gateway and --ip-range need a --subnet each")
    if flags["aux_address"]:
        if not pools:
            raise click.UsageError("--aux-address needs a --subnet")
        pools[0]["AuxiliaryAddresses"] = pairs(flags["aux_address"])
    body = {
        "Name": name,
        "Driver": flags["driver"],
        "Internal": flags["internal"],
        "Attachable": flags["attachable"],
        "EnableIPv6": flags["ipv6"],
        "Options": pairs(flags["opt"]),
        "Labels": pairs(flags["label"]),
        "IPAM": {"Driver": flags["ipam_driver"], "Options": pairs(flags["ipam_opt"]), "Config": pools},
    }
    answer = context.client.post("/networks/create", body)
    if answer.get("Warning"):
        click.echo(f"WARNING: {answer['Warning']}", err=True)
    print(answer["Id"])


@network.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@click.option("--no-trunc", is_flag=True, help="Whole ids.")
@click.option("-f", "--filter", "filter_", multiple=True, help="KEY=VALUE: driver, name, label, dangling, …")
@format_option
@pass_context
def list_(context: Context, /, quiet: bool, no_trunc: bool, filter_: tuple[str, ...], template: str) -> None:
    """List networks.

    \b
    Example:
      wharfie network ls --filter driver=bridge
    """
    found = sorted(context.client.get("/networks", {"filters": filters(filter_)}), key=lambda entry: entry["Name"])
    rows = [{**entry, "ID": entry["Id"] if no_trunc else entry["Id"][:12]} for entry in found]
    if quiet:
        for row in rows:
            print(row["ID"])
        return
    show(rows, _COLUMNS, template)


@network.command()
@click.option("-f", "--format", "template", default="", help="'json' or a template.")
@click.argument("names", nargs=-1, required=True)
@pass_context
def inspect(context: Context, /, template: str, names: tuple[str, ...]) -> int:
    """Show everything about networks.

    \b
    Example:
      wharfie network inspect --format '{{json .Containers}}' front
    """
    return inspect_all(context.client, names, ("networks",), template)


@network.command()
@click.option("-f", "--force", is_flag=True, help="Say nothing of one that is not there.")
@click.argument("names", nargs=-1, required=True)
@pass_context
def rm(context: Context, /, force: bool, names: tuple[str, ...]) -> int:
    """Remove networks.

    \b
    Example:
      wharfie network rm front
    """

    def remove(name: str) -> None:
        try:
            context.client.delete(f"/networks/{name}")
        except ApiError as error:
            if not force or error.status != 404:
                raise

    return each(names, remove)


@network.command()
@click.option("--alias", multiple=True, help="A further name on the network.")
@click.option("--ip", default="", help="IPv4 address.")
@click.option("--ip6", default="", help="IPv6 address.")
@click.option("--link", multiple=True, help="Link to another container.")
@click.option("--driver-opt", multiple=True, help="Option of the driver: NAME=VALUE.")
@click.option("--gw-priority", type=int, default=0, help="The highest gives the default route.")
@click.argument("name")
@click.argument("container")
@pass_context
def connect(context: Context, /, name: str, container: str, **flags: Any) -> None:
    """Connect a container to a network.

    \b
    Example:
      wharfie network connect --alias db back postgres
    """
    addresses = {"IPv4Address": flags["ip"], "IPv6Address": flags["ip6"]}
    endpoint = {
        "Aliases": list(flags["alias"]) or None,
        "Links": list(flags["link"]) or None,
        "DriverOpts": pairs(flags["driver_opt"]) or None,
        "GwPriority": flags["gw_priority"],
        "IPAMConfig": {key: value for key, value in addresses.items() if value} or None,
    }
    context.client.post(f"/networks/{name}/connect", {"Container": container, "EndpointConfig": endpoint})


@network.command()
@click.option("-f", "--force", is_flag=True, help="Also when the container is gone.")
@click.argument("name")
@click.argument("container")
@pass_context
def disconnect(context: Context, /, force: bool, name: str, container: str) -> None:
    """Take a container off a network.

    \b
    Example:
      wharfie network disconnect back postgres
    """
    context.client.post(f"/networks/{name}/disconnect", {"Container": container, "Force": force})


@network.command()
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--filter", "filter_", multiple=True, help="KEY=VALUE: label, until.")
@pass_context
def prune(context: Context, /, force: bool, filter_: tuple[str, ...]) -> None:
    """Remove networks that no container uses.

    \b
    Example:
      wharfie network prune -f
    """
    if not force and not click.confirm("WARNING! This will remove all custom networks not used by a container. Continue?"):
        return
    done = context.client.post("/networks/prune", query={"filters": filters(filter_)})
    if done.get("NetworksDeleted"):
        print("Deleted Networks:", *done["NetworksDeleted"], "", sep="\n")
