"""`wharfie ps`, `start`, `stop`, `restart`, `kill`, `rm`."""

from __future__ import annotations

from collections.abc import Mapping
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
    return each(containers, lambda name: context.client.delete(f"/containers/{name}", query), absent_is_fine=force)


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
        "Names": ",".join(_names(container["Names"], no_trunc)),
        "Labels": ",".join(f"{key}={value}" for key, value in (container.get("Labels") or {}).items()),
        "Mounts": ",".join(mount.get("Name") or mount.get("Source", "") for mount in container.get("Mounts") or []),
        "Networks": ",".join(networks),
        "Size": units.human_size(container.get("SizeRw") or 0)
        + (f" (virtual {units.human_size(virtual)})" if virtual else ""),
    }


def _names(names: list[str], no_trunc: bool) -> list[str]:
    """Without the slash; names with another one in them are links of other containers, shown in whole lists only."""
    plain = [name.removeprefix("/") for name in names]
    return plain if no_trunc else [name for name in plain if "/" not in name]


def _ports(ports: list[Mapping[str, Any]]) -> list[str]:
    """As Docker lists them: neighbours become a range where the host's number is the container's, or there is none; ports
    that are published under another number come last, one by one."""
    spans: list[str] = []
    mapped: list[str] = []
    open_spans: dict[tuple[str, str], tuple[int, int]] = {}
    for port in sorted(ports, key=lambda port: (port["PrivatePort"], port.get("IP") or "", port.get("PublicPort") or 0)):
        address, number, protocol = port.get("IP") or "", port["PrivatePort"], port["Type"]
        if address and port.get("PublicPort") != number:
            mapped.append(f"{_bracketed(address)}:{port.get('PublicPort')}->{number}/{protocol}")
            continue
        key = (address, protocol)
        first, last = open_spans.get(key, (number, number - 1))
        if number != last + 1:
            spans.append(_span(key, first, last))
            first = number
        open_spans[key] = (first, number)
    return [*spans, *(_span(key, first, last) for key, (first, last) in open_spans.items()), *mapped]


def _span(key: tuple[str, str], first: int, last: int) -> str:
    address, protocol = key
    numbers = str(first) if first == last else f"{first}-{last}"
    return f"{_bracketed(address)}:{numbers}->{numbers}/{protocol}" if address else f"{numbers}/{protocol}"


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
