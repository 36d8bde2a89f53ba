"""What interfaces are called in a container: eth0, eth1, …, unless the network or the endpoint says otherwise."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from wharfie.engine.model.container import NetworkRecord
from wharfie.engine.model.network import EndpointSettings
from wharfie.spi.errors import InvalidArgument

NAME = "com.docker.network.endpoint.ifname"
"""Endpoint option: the whole name."""
PREFIX = "com.docker.network.container_iface_prefix"
"""Network option: what comes before the number."""
_NAME = re.compile(r"[^\s/:]{1,15}")
_PREFIX = re.compile(r"[^\s/:]{1,12}")


def check(options: Mapping[str, str]) -> None:
    """Of an endpoint. Errors: InvalidArgument."""
    name = options.get(NAME, "")
    if name and (_NAME.fullmatch(name) is None or name in (".", "..", "lo", "all", "default")):
        raise InvalidArgument(f'{NAME}: "{name}" cannot be the name of an interface')


def check_prefix(options: Mapping[str, str]) -> None:
    """Of a network. Errors: InvalidArgument."""
    prefix = options.get(PREFIX, "")
    if prefix and (_PREFIX.fullmatch(prefix) is None or prefix.startswith(".")):
        raise InvalidArgument(f'{PREFIX}: interfaces cannot be called "{prefix}" and a number')


def choose(record: NetworkRecord, settings: EndpointSettings, taken: Collection[str]) -> str:
    """The name of the endpoint's interface; `taken`: those of the container's others."""
    name = (settings.driver_opts or {}).get(NAME, "")
    if name:
        return name
    prefix = record.options.get(PREFIX) or "eth"
    return next(f"{prefix}{number}" for number in range(len(taken) + 1) if f"{prefix}{number}" not in taken)
