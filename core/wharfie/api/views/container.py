"""Containers: `GET /containers/{id}/json`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic_core import to_json

from wharfie.api.versions import Version
from wharfie.api.views import duration
from wharfie.api.views.endpoint import network_settings_view
from wharfie.engine.model.base import NO_TIME
from wharfie.engine.model.container import Container, MountPoint, State

if TYPE_CHECKING:
    from wharfie.engine.engine import Engine

Sizes = tuple[int, int]
"""Of the writable layer, and with all layers below it."""


class Fragments(NamedTuple):
    """The JSON text of a container but for what moves without its record, and for sizes."""

    to_state: bytes
    to_restarts: bytes
    to_execs: bytes
    to_sizes: bytes
    to_end: bytes


def container_text(
    engine: Engine, container: Container, version: Version, graph: Mapping[str, str], sizes: Sizes | None
) -> bytes:
    """Definition ContainerInspectResponse, as JSON. What the record says is rendered once and kept until it changes."""
    rendered = engine.containers.rendered(container)
    links = engine.containers.links(container)  # the names of other containers
    key = "inspect", version, _has_files(container), tuple(links or ())
    fragments = rendered.get(key)
    if fragments is None:
        fragments = rendered[key] = _fragments(engine, container, version, graph, links)
    shown = b"" if sizes is None else b',"SizeRw":%d,"SizeRootFs":%d' % sizes
    pieces = (
        (fragments.to_state, to_json(state_view(container.state))),
        (fragments.to_restarts, b"%d" % container.restart_count),
        (fragments.to_execs, to_json(engine.execs.of(container.id) or None)),
        (fragments.to_sizes, shown),
    )
    return b"".join(part for piece in pieces for part in piece) + fragments.to_end


def _fragments(
    engine: Engine, container: Container, version: Version, graph: Mapping[str, str], links: Sequence[str] | None
) -> Fragments:
    command = container.command
    who = {
        "Id": container.id,
        "Created": container.created,
        "Path": command[0] if command else "",
        "Args": command[1:],
    }
    named = {"Image": container.image_id, **_paths(engine, container), "Name": f"/{container.name}"}
    confined = {
        "Driver": container.storage_driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
    }
    made = {
        "HostConfig": {**container.host_config.dump(), "Links": links},
        "GraphDriver": {"Data": dict(graph) or None, "Name": container.storage_driver},
    }
    placed = {
        "Mounts": [mount_view(mount) for mount in container.mounts],
        "Config": container.config.dump(),
        "NetworkSettings": network_settings_view(container, version),
    }
    return Fragments(
        to_json(who)[:-1] + b',"State":',
        b"," + to_json(named)[1:-1] + b',"RestartCount":',
        b"," + to_json(confined)[1:-1] + b',"ExecIDs":',
        b"," + to_json(made)[1:-1],
        b"," + to_json(placed)[1:] + b"\n",
    )


def _has_files(container: Container) -> bool:
    """It has none before its first start."""
    return container.state.status != "created" or container.state.exit_code != 0


def _paths(engine: Engine, container: Container) -> dict[str, str]:
    folder = engine.containers.folder(container)
    started = _has_files(container)
    return {
        "ResolvConfPath": f"{folder}/resolv.conf" if started else "",
        "HostnamePath": f"{folder}/hostname" if started else "",
        "HostsPath": f"{folder}/hosts" if started else "",
        "LogPath": container.log_path if started else "",
    }


def state_view(state: State) -> dict[str, Any]:
    """Definition ContainerState. A container that waits for its restart counts as running."""
    status = state.status
    view: dict[str, Any] = {
        "Status": status,
        "Running": state.running or status == "restarting",
        "Paused": status == "paused",
        "Restarting": status == "restarting",
        "OOMKilled": state.oom_killed,
        "Dead": status == "dead",
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": state.started_at,
        "FinishedAt": state.finished_at,
    }
    if state.health is not None:
        view["Health"] = state.health.dump()
    return view


def mount_view(mount: MountPoint) -> dict[str, Any]:
    """Definition MountPoint. Name and Driver belong to volumes."""
    view: dict[str, Any] = {
        "Type": mount.type,
        "Name": mount.name,
        "Source": mount.source,
        "Destination": mount.destination,
        "Driver": mount.driver,
        "Mode": mount.mode,
        "RW": mount.rw,
        "Propagation": mount.propagation,
    }
    for name in ("Name", "Driver"):
        if not view[name]:
            del view[name]
    return view


def status_words(state: State) -> str:
    """The column STATUS of `docker ps`."""
    if state.status == "restarting":
        return f"Restarting ({state.exit_code}) {_ago(state.finished_at)}"
    if state.running:
        up = f"Up {_since(state.started_at)}"
        if state.status == "paused":
            return f"{up} (Paused)"
        if state.health is not None:
            return f"{up} ({'health: starting' if state.health.status == 'starting' else state.health.status})"
        return up
    if state.status == "removing":
        return "Removal In Progress"
    if state.status == "dead":
        return "Dead"
    if state.started_at == NO_TIME or state.status == "created":
        return "Created"
    return f"Exited ({state.exit_code}) {_ago(state.finished_at)}" if state.finished_at != NO_TIME else ""


def _since(moment: str) -> str:
    return duration.words(time.time() - duration.parse(moment))


def _ago(moment: str) -> str:
    return f"{_since(moment)} ago"
