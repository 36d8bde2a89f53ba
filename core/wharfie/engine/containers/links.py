"""`--link`: on the default network variables and lines in /etc/hosts, on others names that only this container knows.

A link is kept as `ID:ALIAS`, so that it survives a new name of the container that it leads to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from wharfie.engine.model.container import Container
from wharfie.engine.model.host import HostConfig
from wharfie.engine.model.network import EndpointSettings
from wharfie.engine.networks.ports import parse_port
from wharfie.spi.errors import InvalidArgument, NotFound, WharfieError

Find = Callable[[str], Container]

_NOT_OF_USE = frozenset({"HOME", "PATH"})
_ALIAS = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


def parse(text: str) -> tuple[str, str]:
    """`NAME[:ALIAS]`, or `/NAME:/OWNER/ALIAS` as inspect shows it: (name, alias). Errors: InvalidArgument."""
    name, colon, alias = text.partition(":")
    if name.startswith("/"):
        name, alias = name[1:], alias.rpartition("/")[2]
    alias = alias if colon else name
    if not name or ":" in alias or _ALIAS.fullmatch(alias) is None:
        raise InvalidArgument(f"bad format for links: {text}")
    return name, alias


def settle(host: HostConfig, networks: Mapping[str, EndpointSettings], find: Find) -> None:
    """Check a new container's links and bring them into their kept form. Errors: InvalidArgument."""
    if host.links:
        mode = host.network_mode
        if mode == "host" or mode.startswith("container:"):
            kind = "host type networking" if mode == "host" else "container type network"
            raise InvalidArgument(
                f"conflicting options: {kind} can't be used with links. This would result in undefined behavior"
            )
        kept = [_kept(text, find) for text in host.links]
        if mode in ("bridge", "default"):
            host.links = kept
        else:
            settings = networks[mode]
            settings.links, host.links = [*(settings.links or ()), *host.links], None
    for settings in networks.values():
        for text in settings.links or ():
            parse(text)


def _kept(text: str, find: Find) -> str:
    name, alias = parse(text)
    try:
        other = find(name)
    except NotFound as error:
        # As 404 it would be taken for a missing image, and clients would pull.
        raise InvalidArgument(f"could not get container for {name}: {error.message}") from error
    if other.host_config.network_mode == "host":
        raise InvalidArgument(
            "conflicting options: host type networking can't be used with links. This would result in undefined behavior"
        )
    return f"{other.id}:{alias}"


def shown(container: Container, find: Find) -> list[str] | None:
    """As inspect shows them: `/NAME:/OWNER/ALIAS`."""
    found = []
    for other, alias in _linked(container, find):
        found.append(f"/{other.name}:/{container.name}/{alias}")
    return found or None


def _linked(container: Container, find: Find) -> Iterable[tuple[Container, str]]:
    for text in container.host_config.links or ():
        kept, _, alias = text.partition(":")
        try:
            yield find(kept), alias
        except NotFound:  # it was removed, and the link with it
            continue


def environment(container: Container, find: Find) -> list[str]:
    """Variables that tell of the linked containers. Errors: WharfieError (one of them does not run)."""
    found: list[str] = []
    for other, alias in _linked(container, find):
        if not other.state.running:
            raise WharfieError(f"Cannot link to a non running container: /{other.name} AS /{container.name}/{alias}")
        found += _variables(container, other, alias)
    return found


def _variables(container: Container, other: Container, alias: str) -> list[str]:
    prefix = alias.upper().replace("-", "_")
    address = _address(other)
    ports = sorted({parse_port(port) for port in other.exposed})
    found = [f"{prefix}_NAME=/{container.name}/{alias}"]
    if ports:
        number, protocol = ports[0]
        found.append(f"{prefix}_PORT={protocol}://{address}:{number}")
    for number, protocol in ports:
        one = f"{prefix}_PORT_{number}_{protocol.upper()}"
        found += [f"{one}={protocol}://{address}:{number}", f"{one}_ADDR={address}", f"{one}_PORT={number}"]
        found.append(f"{one}_PROTO={protocol}")
    own = (entry.partition("=") for entry in other.config.env or ())
    return found + [f"{prefix}_ENV_{name}={value}" for name, _, value in own if name not in _NOT_OF_USE]


def hosts_lines(container: Container, find: Find) -> list[tuple[str, str]]:
    """(address, names) of the linked containers that run."""
    found = []
    for other, alias in _linked(container, find):
        if address := _address(other):
            names = dict.fromkeys([alias, other.config.hostname, other.name])
            found.append((address, " ".join(names)))
    return found


def names(container: Container) -> dict[str, str]:
    """On networks with names: alias → the name that it stands for, for this container alone."""
    found = {}
    for settings in container.networks.values():
        for text in settings.links or ():
            name, alias = parse(text)
            found[alias.lower()] = name.lower()
    return found


def leads_to(container: Container, other: Container) -> bool:
    return any(text.partition(":")[0] == other.id for text in container.host_config.links or ())


def without(container: Container, alias: str) -> list[str]:
    """The links but one. Errors: NotFound."""
    links = container.host_config.links or []
    kept = [text for text in links if text.partition(":")[2] != alias]
    if len(kept) == len(links):
        raise NotFound(f"Cannot get parent /{container.name} for link {alias}: there is no such link")
    return kept


def _address(other: Container) -> str:
    return next(
        (settings.ip_address for name, settings in other.networks.items() if name == "bridge" and settings.ip_address), ""
    )
