"""`wharfie inspect`, `events`, `info`, `version`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version as installed_version
from typing import Any

import click

from wharfie.cli import units
from wharfie.cli.context import Context, filters, pass_context
from wharfie.cli.table import render
from wharfie.client import ApiError, Client
from wharfie.client.client import API_VERSION

_OBJECTS = ("containers", "images", "networks", "volumes")
_PATHS: Mapping[str, str] = {
    "containers": "/containers/{}/json",
    "images": "/images/{}/json",
    "networks": "/networks/{}",
    "volumes": "/volumes/{}",
}
_FACTS: Sequence[tuple[str, str]] = (
    ("Containers", "Containers"),
    (" Running", "ContainersRunning"),
    (" Paused", "ContainersPaused"),
    (" Stopped", "ContainersStopped"),
    ("Images", "Images"),
    ("Server Version", "ServerVersion"),
    ("Storage Driver", "Driver"),
    ("Logging Driver", "LoggingDriver"),
    ("Cgroup Driver", "CgroupDriver"),
    ("Cgroup Version", "CgroupVersion"),
    ("Default Runtime", "DefaultRuntime"),
    ("Kernel Version", "KernelVersion"),
    ("Operating System", "OperatingSystem"),
    ("OSType", "OSType"),
    ("Architecture", "Architecture"),
    ("CPUs", "NCPU"),
    ("Name", "Name"),
    ("ID", "ID"),
    ("Docker Root Dir", "DockerRootDir"),
    ("Debug Mode", "Debug"),
    ("Live Restore Enabled", "LiveRestoreEnabled"),
)
_PLUGIN_KINDS = ("Volume", "Network", "Log", "Authorization")


@click.command()
@click.option("-f", "--format", "template", default="", help="'json' or a template such as '{{.State.Status}}'.")
@click.option("--type", "type_", type=click.Choice([name.removesuffix("s") for name in _OBJECTS]), help="Look only there.")
@click.argument("names", nargs=-1, required=True)
@pass_context
def inspect(context: Context, /, template: str, type_: str | None, names: tuple[str, ...]) -> int:
    """Show everything about containers, images, networks and volumes, found by name or id in this order.

    \b
    Examples:
      wharfie inspect web
      wharfie inspect --format '{{.NetworkSettings.IPAddress}}' web
    """
    return inspect_all(context.client, names, (f"{type_}s",) if type_ else _OBJECTS, template)


@click.command()
@click.option("--since", default="", help="From then on: a time, or 10m ago.")
@click.option("--until", default="", help="Up to then.")
@click.option("-f", "--filter", "filter_", multiple=True, help="KEY=VALUE: type, event, container, label, …")
@click.option("--format", "template", default="", help="'json' or a template such as '{{.Action}}'.")
@pass_context
def events(context: Context, /, since: str, until: str, filter_: tuple[str, ...], template: str) -> None:
    """Show what happens in the engine, as it happens.

    \b
    Example:
      wharfie events --since 10m --filter type=container
    """
    query = {
        "since": units.moment(since) if since else "",
        "until": units.moment(until) if until else "",
        "filters": filters(filter_),
    }
    for event in context.client.messages("GET", "/events", query):
        print(render(event, template) if template else _event_line(event), flush=True)


@click.command()
@click.option("-f", "--format", "template", default="", help="'json' or a template such as '{{.ServerVersion}}'.")
@pass_context
def info(context: Context, /, template: str) -> None:
    """Show facts about the engine: what it runs, with which drivers, on which host.

    \b
    Example:
      wharfie info --format '{{.Driver}}'
    """
    facts = context.client.get("/info")
    if template:
        print(render(facts, template))
        return
    print("Server:")
    for title, key in _FACTS:
        if key in facts:
            value = facts[key]
            print(f" {title}: {str(value).lower() if isinstance(value, bool) else value}")
        if key == "Driver":
            for name, value in facts.get("DriverStatus") or ():
                print(f"  {name}: {value}")
    print(f" Total Memory: {_binary_size(facts.get('MemTotal') or 0)}")
    print(" Plugins:")
    for kind in _PLUGIN_KINDS:
        if names := (facts.get("Plugins") or {}).get(kind):
            print(f"  {kind}: {' '.join(names)}")
    for warning in facts.get("Warnings") or ():
        print(warning, file=sys.stderr)


@click.command()
@click.option("-f", "--format", "template", default="", help="'json' or a template such as '{{.Server.Version}}'.")
@pass_context
def version(context: Context, /, template: str) -> None:
    """Show the versions of client and engine.

    \b
    Example:
      wharfie version --format '{{.Server.ApiVersion}}'
    """
    client = {
        "Version": installed_version("wharfie"),
        "ApiVersion": API_VERSION,
        "Python": f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}",
    }
    if not template:
        print(f"Client: Wharfie\n Version:      {client['Version']}")
        print(f" API version:  {client['ApiVersion']}\n Python:       {client['Python']}", flush=True)
    server = context.client.get("/version")
    if template:
        print(render({"Client": client, "Server": server}, template))
        return
    name = (server.get("Platform") or {}).get("Name") or "Engine"
    print(f"\nServer: {name}\n Version:      {server['Version']}")
    print(f" API version:  {server['ApiVersion']} (minimum version {server['MinAPIVersion']})")
    print(f" OS/Arch:      {server['Os']}/{server['Arch']}\n Kernel:       {server.get('KernelVersion', '')}")


def inspect_all(client: Client, names: Sequence[str], kinds: Sequence[str], template: str) -> int:
    """Print what is found as a JSON array, or each by the template; name what is not found, and 1 then."""
    found: list[Any] = []
    missing: list[str] = []
    for name in names:
        answer = _find(client, name, kinds)
        if answer is None:
            missing.append(name)
        else:
            found.append(answer)
    if template:
        for answer in found:
            print(render(answer, template))
    else:
        print(json.dumps(found, indent=4, ensure_ascii=False))
    for name in missing:
        kind = f"such {kinds[0].removesuffix('s')}" if len(kinds) == 1 else "such object"
        print(f"Error: No {kind}: {name}", file=sys.stderr)
    return 1 if missing else 0


def _find(client: Client, name: str, kinds: Sequence[str]) -> Any:
    for kind in kinds:
        try:
            return client.get(_PATHS[kind].format(name))
        except ApiError as error:
            # A name that one kind refuses as malformed may be right for the next one.
            if error.status != 404 and not (error.status == 400 and len(kinds) > 1):
                raise
    return None


def _event_line(event: Mapping[str, Any]) -> str:
    """As `docker events` prints it, in local time with nanoseconds."""
    seconds, fraction = divmod(event["timeNano"], 1_000_000_000)
    moment = datetime.fromtimestamp(seconds).astimezone()
    offset = moment.strftime("%z")
    zone = "Z" if offset == "+0000" else f"{offset[:3]}:{offset[3:]}"
    stamp = f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction:09d}{zone}"
    attributes = ", ".join(f"{key}={value}" for key, value in sorted((event["Actor"].get("Attributes") or {}).items()))
    return f"{stamp} {event['Type']} {event['Action']} {event['Actor']['ID']}" + (f" ({attributes})" if attributes else "")


def _binary_size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.4g}{unit}"
