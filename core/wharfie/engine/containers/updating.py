"""`docker update`: which limits can be changed, and what they become (`POST /containers/{id}/update`)."""

from __future__ import annotations

from typing import Any

from wharfie.engine.containers.restarts import check_restart
from wharfie.engine.model.container import Container
from wharfie.engine.model.host import HostConfig
from wharfie.engine.model.update import UpdateRequest
from wharfie.engine.spec import limits
from wharfie.spi.errors import Conflict, InvalidArgument

CHANGEABLE = frozenset(
    {"blkio_weight", "cpu_shares", "nano_cpus", "cpu_period", "cpu_quota", "cpuset_cpus", "cpuset_mems", "pids_limit"}
    | {"cpu_realtime_period", "cpu_realtime_runtime", "memory", "memory_swap", "memory_reservation", "restart_policy"}
)
_EMPTY: tuple[Any, ...] = (0, "", None, [], {})


def updated(container: Container, request: UpdateRequest) -> HostConfig:
    """The container's host configuration with what was sent. Errors: InvalidArgument, Conflict, with Docker's texts."""
    sent = {name: getattr(request, name) for name in request.model_fields_set}
    for name, value in sent.items():
        field = HostConfig.model_fields[name]
        if name not in CHANGEABLE and value not in _EMPTY and value != field.get_default(call_default_factory=True):
            raise InvalidArgument(f"{field.alias} cannot be changed by an update: make a new container")
    changed = {name: value for name, value in sent.items() if name in CHANGEABLE and value not in _EMPTY}
    policy = changed.get("restart_policy")
    if policy is not None and not policy.name:
        changed.pop("restart_policy")
    elif policy is not None and container.host_config.auto_remove and policy.name != "no":
        raise _cannot(container, "Restart policy cannot be updated because AutoRemove is enabled for the container")
    if "pids_limit" in changed:
        changed["pids_limit"] = max(changed["pids_limit"], 0)
    host = container.host_config
    _check_against(container, changed)
    draft = host.model_copy(update=changed, deep=True)
    limits.check(draft)
    check_restart(draft)
    return draft


def _cannot(container: Container, reason: str) -> Conflict:
    return Conflict(f"Cannot update container {container.id}: {reason}")


def _check_against(container: Container, changed: dict[str, Any]) -> None:
    """What two settings together forbid, one of which was there before."""
    host = container.host_config
    memory, swap = changed.get("memory", 0), changed.get("memory_swap", 0)
    if memory and not swap and 0 < host.memory_swap < memory:
        text = "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        raise _cannot(container, text)
    if "nano_cpus" in changed and (host.cpu_period or host.cpu_quota):
        which = "CPU Period" if host.cpu_period else "CPU Quota"
        raise _cannot(container, f"Conflicting options: Nano CPUs cannot be updated as {which} has already been set")
    for field, name in (("cpu_period", "CPU Period"), ("cpu_quota", "CPU Quota")):
        if field in changed and host.nano_cpus:
            raise _cannot(container, f"Conflicting options: {name} cannot be updated as NanoCPUs has already been set")
