"""Which networks a new container is in, and which it may be connected to later."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from wharfie.engine.containers.catalog import Catalog
from wharfie.engine.containers.modes import CONTAINER
from wharfie.engine.model.container import Container, ContainerCreate, NetworkRecord
from wharfie.engine.model.network import EndpointIPAMConfig, EndpointSettings
from wharfie.engine.networks import interfaces, link_local, sysctls
from wharfie.engine.networks.networks import Networks
from wharfie.spi.errors import Forbidden, InvalidArgument, NotFound

_ALONE = frozenset({"host", "none"})
_PREDEFINED = frozenset({"bridge", "default", *_ALONE})
_MAC = re.compile(r"([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}")


def choose_networks(request: ContainerCreate, networks: Networks, catalog: Catalog) -> dict[str, EndpointSettings]:
    """Network name → what the user asked there; the network mode's first. Empty for `container:` and no network.

    Errors: NotFound, InvalidArgument.
    """
    host, mode = request.host_config, request.host_config.network_mode
    if mode.startswith(CONTAINER):
        host.network_mode = CONTAINER + _id_of(mode.removeprefix(CONTAINER), catalog)
        return {}
    if request.network_disabled:
        mode = host.network_mode = "none"
    asked = {_meant(name, settings): settings for name, settings in request.networking_config.endpoints_config.items()}
    first = _find(networks, mode)
    chosen = {first.name if first else mode: _take(asked, first, mode)}
    for name, settings in asked.items():
        record = _find(networks, name)
        if mode in _ALONE or (record is not None and record.name in _ALONE):
            raise InvalidArgument("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
        chosen[record.name if record else name] = settings
    for name, settings in chosen.items():
        record = _find(networks, name)
        if record is not None:
            _check_settings(record, settings)
            settings.network_id = record.id
    return chosen


def _meant(name: str, settings: EndpointSettings) -> str:
    """Docker goes by the id, where a client says one, but for networks that are always there."""
    return name if name in _PREDEFINED else settings.network_id or name


def _id_of(ref: str, catalog: Catalog) -> str:
    """That there is no such container shows at the start, as with Docker (a 404 here would make clients pull)."""
    try:
        return catalog.get(ref).id
    except NotFound:
        return ref


def _find(networks: Networks, name: str) -> NetworkRecord | None:
    """None: there is no such network yet. Docker finds that out at the start (a 404 here would make clients pull)."""
    try:
        return networks.get(name)
    except NotFound:
        return None


def _take(asked: dict[str, EndpointSettings], record: NetworkRecord | None, mode: str) -> EndpointSettings:
    """The user's settings for the first network, under whichever name the client used."""
    found = EndpointSettings()
    names = (mode, "default") if record is None else (mode, record.name, record.id, "default")
    for name in names:
        found = asked.pop(name, found)
    return found


def _check_settings(record: NetworkRecord, settings: EndpointSettings) -> None:
    """Errors: InvalidArgument, Forbidden (the network is only a configuration)."""
    if record.config_only:
        raise Forbidden(
            f"cannot create endpoint on configuration-only network: make a network with --config-from {record.name}"
        )
    problems = list(_problems(record, settings))
    if problems:
        raise InvalidArgument(
            f"invalid config for network {record.name}: invalid endpoint settings:\n" + "\n".join(problems)
        )
    sysctls.parse(settings.driver_opts or {})
    interfaces.check(settings.driver_opts or {})
    link_local.parse((settings.ipam_config.link_local_ips if settings.ipam_config else None) or ())


def _problems(record: NetworkRecord, settings: EndpointSettings) -> Iterator[str]:
    """With Docker's texts."""
    ipam = settings.ipam_config or EndpointIPAMConfig()
    if (ipam.ipv4_address or ipam.ipv6_address) and record.predefined:
        yield "user specified IP address is supported on user defined networks only"
    else:
        for version, text in ((4, ipam.ipv4_address), (6, ipam.ipv6_address)):
            if text and (problem := _address_problem(record, version, text)):
                yield problem
    if settings.mac_address and _MAC.fullmatch(settings.mac_address) is None:
        yield f"invalid MAC address {settings.mac_address}: want six bytes such as 02:42:ac:11:00:02"
    if settings.aliases and record.predefined:
        yield "network-scoped aliases are only supported for user-defined networks"


def _address_problem(record: NetworkRecord, version: int, text: str) -> str:
    try:
        address = ip_address(text)
    except ValueError:
        return f"invalid IPv{version} address: {text}"
    if address.version != version:
        return f"invalid IPv{version} address: {text}"
    if any(address in ip_network(pool.subnet) for pool in record.pools) or not record.pools:
        return ""
    return f"no configured subnet or ip-range contain the IP address {text}"


def check_connect(container: Container, record: NetworkRecord, settings: EndpointSettings) -> None:
    """Errors: InvalidArgument, Forbidden, with Docker's texts."""
    if record.name in _ALONE or container.host_config.network_mode in _ALONE:
        which = "host" if "host" in (record.name, container.host_config.network_mode) else "none"
        raise InvalidArgument(
            f"container cannot be disconnected from {which} network or connected to {which} network"
            if which == "host"
            else "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        )
    if container.host_config.network_mode.startswith(CONTAINER):
        raise InvalidArgument(
            "container sharing network namespace with another container or host cannot be connected to any other network"
        )
    if record.name in container.networks:
        raise Forbidden(f"endpoint with name {container.name} already exists in network {record.name}")
    _check_settings(record, settings)
