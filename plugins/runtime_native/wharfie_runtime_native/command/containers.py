"""Containers as the commands find them: what state they are in."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, Literal

from wharfie.shim.cgroups import open_reader
from wharfie.spi.errors import NotFound
from wharfie_runtime_native import pids
from wharfie_runtime_native.command.store import Folder, Record, Store

Status = Literal["creating", "created", "running", "paused", "stopped"]

ALIVE: Final = frozenset(("created", "running", "paused"))


def record_of(folder: Folder) -> Record:
    """Errors: NotFound (its making was given up before it began)."""
    record = folder.record()
    if record is None:
        raise NotFound(f'container "{folder.id}" does not exist')
    return record


def status_of(folder: Folder, record: Record, *, locked: bool = False) -> Status:
    """The status of runtime-spec, and "paused". `locked`: the caller has the lock, so nobody else is at work."""
    if record.pid == 0:
        return "stopped" if locked or not folder.is_locked() else "creating"
    if not pids.is_alive(record.pid, record.pid_start):
        return "stopped"
    if open_reader(record.cgroup).is_frozen():
        return "paused"
    if not folder.has_gate():
        return "running"
    from wharfie_runtime_native.gate import is_waiting  # engines ask most often about a container that runs

    return "created" if is_waiting(folder.gate) else "running"


def pids_of(record: Record) -> list[int]:
    """The host's pids of all its processes."""
    return sorted(open_reader(record.cgroup).pids())


def state_of(folder: Folder) -> dict[str, Any]:
    """The state of runtime-spec (runtime.md "State"), with what runc tells besides. Errors: NotFound."""
    record = record_of(folder)
    status = status_of(folder, record)
    state: dict[str, Any] = {
        "ociVersion": record.version,
        "id": record.id,
        "pid": record.pid if status in ALIVE else 0,
        "status": status,
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
        "owner": _name(record.owner),
    }
    annotations = folder.config().get("annotations")
    return {**state, "annotations": annotations} if annotations else state


def states(store: Store) -> list[dict[str, Any]]:
    """Of all containers; those that go away meanwhile are left out."""
    found = []
    for name in store.ids():
        try:
            folder = store.find(name)
        except NotFound:
            continue
        with folder, suppress(NotFound, FileNotFoundError):
            found.append(state_of(folder))
    return found


def _name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
