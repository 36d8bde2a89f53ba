"""Configuration networks: options without a network, which others are made from (`--config-only`, `--config-from`)."""

from __future__ import annotations

from wharfie.engine.identity import new_id, rfc3339
from wharfie.engine.model.container import NetworkRecord
from wharfie.engine.model.network import NetworkCreate
from wharfie.engine.networks.addressing import check_pool
from wharfie.spi.errors import Forbidden

DRIVER = "null"
"""What Docker shows as a configuration network's driver; none is asked."""


def make(request: NetworkCreate) -> NetworkRecord:
    """The record of a configuration network. Errors: Forbidden (what is of a network), InvalidArgument (a subnet)."""
    if request.internal or request.attachable or request.ingress or request.config_from:
        raise Forbidden(
            "configuration network can only contain network specific fields. Network operator fields are "
            "[ ingress | internal | attachable | scope ] are not supported."
        )
    for pool in (request.ipam.config if request.ipam else None) or ():
        check_pool(pool)
    return NetworkRecord(
        id=new_id(),
        name=request.name,
        created=rfc3339(),
        driver=DRIVER,
        enable_ipv4=request.enable_ipv4,
        enable_ipv6=request.enable_ipv6,
        options=request.options,
        labels=request.labels,
        ipam_driver=(request.ipam.driver if request.ipam else "") or "default",
        ipam_options=request.ipam.options if request.ipam else None,
        config_only=True,
        asked=request.ipam,
    )


def complete(request: NetworkCreate, template: NetworkRecord) -> NetworkCreate:
    """The request with the configuration's part. Errors: Forbidden."""
    if not template.config_only:
        raise Forbidden(f'"{template.name}" is not a configuration network')
    own_pools = request.ipam is not None and bool(request.ipam.config or request.ipam.options)
    if own_pools or request.options or request.enable_ipv6:
        raise Forbidden("user specified configurations are not supported if the network depends on a configuration network")
    return request.model_copy(
        update={
            "ipam": template.asked,
            "enable_ipv4": template.enable_ipv4,
            "enable_ipv6": template.enable_ipv6,
            "options": dict(template.options),
            "labels": {**template.labels, **request.labels},
        }
    )
