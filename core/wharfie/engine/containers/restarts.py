"""Restart policies: which there are, and what they go together with."""

from __future__ import annotations

from wharfie.engine.model.host import HostConfig
from wharfie.spi.errors import InvalidArgument

_POLICIES = ("no", "always", "on-failure", "unless-stopped")


def check_restart(host: HostConfig) -> None:
    """Errors: InvalidArgument with Docker's texts. An empty policy becomes "no"."""
    policy = host.restart_policy
    if policy.name not in ("", *_POLICIES):
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{policy.name}'; use one of 'no', 'always', 'on-failure', or "
            "'unless-stopped'"
        )
    if policy.maximum_retry_count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidArgument("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if host.auto_remove and policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")
    policy.name = policy.name or "no"
