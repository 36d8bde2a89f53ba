"""`--publish` and `--expose`: port specifications with addresses, ranges and protocols."""

from __future__ import annotations

import re
from collections.abc import Iterable

import click

_SPECIFICATION = re.compile(
    r"(?:(?:(?P<ip>\[[0-9a-fA-F:.%]+\]|[0-9.]*):)?(?P<host>\d*(?:-\d+)?):)?(?P<port>\d+(?:-\d+)?)(?:/(?P<protocol>tcp|udp|sctp))?"
)
HIGHEST = 65535


def port_bindings(published: Iterable[str], exposed: Iterable[str]) -> tuple[list[str], dict[str, list[dict[str, str]]]]:
    """Ports to expose ("80/tcp"), and the host's side of those that are published. Errors: click.BadParameter."""
    ports: dict[str, None] = {}
    bindings: dict[str, list[dict[str, str]]] = {}
    for text in published:
        match = _SPECIFICATION.fullmatch(text)
        if match is None:
            raise click.BadParameter(
                f"invalid port specification: {text!r} (8080:80, 127.0.0.1:53:53/udp)", param_hint="--publish"
            )
        protocol = match["protocol"] or "tcp"
        container = _range(match["port"], text)
        address = (match["ip"] or "").strip("[]")
        for port, host in zip(container, _host_ports(match["host"] or "", len(container), text), strict=True):
            name = f"{port}/{protocol}"
            ports[name] = None
            bindings.setdefault(name, []).append({"HostIp": address, "HostPort": host})
    for text in exposed:
        number, _, protocol = text.partition("/")
        if re.fullmatch(r"\d+(-\d+)?", number) is None:
            raise click.BadParameter(f"invalid range format for --expose: {text}", param_hint="--expose")
        ports.update((f"{port}/{protocol or 'tcp'}", None) for port in _range(number, text))
    return list(ports), bindings


def _host_ports(text: str, count: int, whole: str) -> list[str]:
    if not text:
        return [""] * count
    host = _range(text, whole)
    if len(host) == count:
        return [str(port) for port in host]
    if count == 1:
        return [text]  # the engine takes a free one of the range
    raise click.BadParameter(f"invalid ranges specified for container and host ports: {whole}", param_hint="--publish")


def _range(text: str, whole: str) -> range:
    first, _, last = text.partition("-")
    ports = range(int(first), int(last or first) + 1)
    if not ports or ports[0] < 0 or ports[-1] > HIGHEST:
        raise click.BadParameter(f"invalid port specification: {whole!r}: ports go up to {HIGHEST}", param_hint="--publish")
    return ports
