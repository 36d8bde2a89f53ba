"""Which of a container's networks its packets for elsewhere go to."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network

from wharfie.engine.model.container import NetworkRecord
from wharfie.engine.model.network import EndpointSettings

VERSIONS = (4, 6)


def choose(networks: Iterable[tuple[NetworkRecord, EndpointSettings]], version: int) -> str:
    """The id of the network that has the default route of this version of IP; empty: none leads anywhere.

    The highest priority wins (`gw-priority`), then the network that has both versions, then the first by name.
    """
    candidates = []
    for record, settings in networks:
        versions = {ip_network(pool.subnet).version for pool in record.pools}
        if version in versions and not record.internal:
            candidates.append((-settings.gw_priority, -len(versions), record.name, record.id))
    return min(candidates)[3] if candidates else ""
