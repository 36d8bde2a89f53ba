"""`wharfie ps`, `start`, `stop`, `restart`, `kill`, `rm`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from wharfie.cli import units
from wharfie.cli.context import Context, each, filters, pass_context
from wharfie.cli.table import format_option, show

_COLUMNS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "Ports": "PORTS",
    "Names": "NAMES",
}
_SHORT_ID, _SHORT_COMMAND = 12, 20


@click.command()
@click.option("-a", "--all", "all_", is_flag=True, help="Stopped ones too.")
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@click.option("-n", "--last", type=int, default=-1, help="The last N that were created.")
@click.option("-l", "--latest", is_flag=True, help="The last one that was created.")
@click.option("-s", "--size", is_flag=True, help="With the size of their files.")
@click.option("--no-trunc", is_flag=True, help="Whole ids and commands.")
@click.option("-f", "--filter", "filter_", multiple=True, help="KEY=VALUE: name, status, label, network, …")
@format_option
@pass_context
def ps(
    context: Context,
    /,
    all_: bool,
    quiet: bool,
    last: int,
    latest: bool,
    size: bool,
    no_trunc: bool,
    filter_: tuple[str, ...],
    template: str,
) -> None:
    """List containers.

    \b
    Examples:
      wharfie ps -a
      wharfie ps -q --filter label=tier=front
      wharfie ps --format '{{.Names}}\\t{{.Status}}'
    """
    limit = 1 if latest else last
    query = {"all": all_, "limit": limit if limit > 0 else None, "size": size, "filters": filters(filter_)}
    found = context.client.get("/containers/json", query)
    rows = [_row(container, no_trunc) for container in found]
    if quiet:
        for row in rows:
            print(row["ID"])
        return
    show(rows, _COLUMNS | ({"Size": "SIZE"} if size else {}), template)


@click.command()
@click.option("-a", "--attach", is_flag=True, help="Show its output and pass signals on.")
@click.option("-i", "--interactive", is_flag=True, help="Connect stdin as well.")
@click.option("--detach-keys", default="", help="Keys that let go of the container (ctrl-p,ctrl-q).")
@click.argument("containers", nargs=-1, required=True)
@pass_context
def start(context: Context, /, attach: bool, interactive: bool, detach_keys: str, containers: tuple[str, ...]) -> int:
    """Start stopped containers.

    \b
    Examples:
      wharfie start web db
      wharfie start -ai shell
    """
    client = context.client
    if not attach and not interactive:
        return each(containers, lambda name: client.post(f"/containers/{name}/start"))
    if len(containers) > 1:
        raise click.UsageError("you cannot start and attach multiple containers at once")
    from wharfie.cli.run import start_attached  # its imports are for attaching only

    return start_attached(client, containers[0], stdin=interactive, detach_keys=detach_keys)


def _stopping(action: str, doc: str) -> click.Command:
    @click.command(action, help=doc)
    @click.option("-s", "--signal", default="", help="Signal in place of the container's own.")
    @click.option("-t", "--timeout", "--time", type=int, help="Seconds to wait before killing; -1: for ever.")
    @click.argument("containers", nargs=-1, required=True)
    @pass_context
    def command(context: Context, /, signal: str, timeout: int | None, containers: tuple[str, ...]) -> int:
        query = {"signal": signal, "t": None if timeout is None else str(timeout)}
        return each(containers, lambda name: context.client.post(f"/containers/{name}/{action}", query=query))

    return command


stop = _stopping(
    "stop",
    "Stop running containers: SIGTERM, and SIGKILL after ten seconds.\n\n\b\nExample:\n  wharfie stop -t 30 web db",
)
restart = _stopping("restart", "Stop containers and start them again.\n\n\b\nExample:\n  wharfie restart web")


@click.command()
@click.option("-s", "--signal", default="", help="Which signal (SIGKILL).")
@click.argument("containers", nargs=-1, required=True)
@pass_context
def kill(context: Context, /, signal: str, containers: tuple[str, ...]) -> int:
    """Send a signal to running containers.

    \b
    Example:
      wharfie kill -s HUP web
    """
    return each(containers, lambda name: context.client.post(f"/containers/{name}/kill", query={"signal": signal}))


@click.command()
@click.option("-f", "--force", is_flag=True, help="Running ones too (SIGKILL).")
@click.option("-v", "--volumes", is_flag=True, help="With their anonymous volumes.")
@click.option("-l", "--link", is_flag=True, help="Remove the link, not the container.")
@click.argument("containers", nargs=-1, required=True)
@pass_context
def rm(context: Context, /, force: bool, volumes: bool, link: bool, containers: tuple[str, ...]) -> int:
    """Remove containers.

    \b
    Example:
      wharfie rm -f $(wharfie ps -aq)
    """
    query = {"force": force, "v": volumes, "link": link}
    return each(containers, lambda name: context.client.delete(f"/containers/{name}", query))


def _row(container: Mapping[str, Any], no_trunc: bool) -> dict[str, Any]:
    command, identity = container["Command"], container["Id"]
    if not no_trunc:
        identity = identity[:_SHORT_ID]
        if len(command) > _SHORT_COMMAND:
            command = command[: _SHORT_COMMAND - 1] + "…"
    networks = (container.get("NetworkSettings") or {}).get("Networks") or {}
    virtual = container.get("SizeRootFs") or 0
    return {
        "ID": identity,
        "Image": container["Image"],
        "Command": f'"{command}"',
        "CreatedAt": container["Created"],
        "RunningFor": units.ago(container["Created"]),
        "Status": container["Status"],
        "State": container["State"],
        "Ports": ", ".join(_ports(container.get("Ports") or [])),
        "Names": ",".join(name.removeprefix("/") for name in container["Names"]),
        "Labels": ",".join(f"{key}={value}" for key, value in (container.get("Labels") or {}).items()),
        "Mounts": ",".join(mount.get("Name") or mount.get("Source", "") for mount in container.get("Mounts") or []),
        "Networks": ",".join(networks),
        "Size": units.human_size(container.get("SizeRw") or 0)
        + (f" (virtual {units.human_size(virtual)})" if virtual else ""),
    }


def _ports(ports: list[Mapping[str, Any]]) -> Iterator[str]:
    """As Docker lists them: neighbours that map alike become a range."""
    runs: list[tuple[str, str, int, int, int]] = []  # address, protocol, first container port, last, first host port
    ordered = sorted(
        ports, key=lambda port: (port.get("IP") or "", port["Type"], port["PrivatePort"], port.get("PublicPort") or 0)
    )
    for port in ordered:
        address, protocol, private, public = (
            port.get("IP") or "",
            port["Type"],
            port["PrivatePort"],
            port.get("PublicPort") or 0,
        )
        if runs:
            run_address, run_protocol, first, last, host = runs[-1]
            follows = private == last + 1 and public == (host + private - first if host else 0)
            if (run_address, run_protocol) == (address, protocol) and follows:
                runs[-1] = (address, protocol, first, private, host)
                continue
        runs.append((address, protocol, private, private, public))
    for address, protocol, first, last, host in sorted(runs, key=lambda run: (run[4] == 0, run[2], run[0])):
        inside = f"{_span(first, last)}/{protocol}"
        shown = f"[{address}]" if ":" in address else address
        yield f"{shown}:{_span(host, host + last - first)}->{inside}" if host else inside


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
