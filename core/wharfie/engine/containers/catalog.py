"""Which containers there are: records in memory, written through to the store; one lock and one set of waiters for each."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wharfie.engine.containers.waiting import Waiting
from wharfie.engine.identity import by_prefix
from wharfie.engine.model.container import Container
from wharfie.engine.settings import EngineSettings
from wharfie.spi.driver import ContainerFacts
from wharfie.spi.errors import Conflict, NotFound
from wharfie.spi.runtime import AttachRequest
from wharfie.store.metadata import Metadata

TABLE = "containers"


@dataclass(slots=True)
class Live:
    """What the daemon holds of a container beside its record; gone with the daemon."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: Waiting = field(default_factory=Waiting)
    attaching: list[tuple[socket.socket, AttachRequest]] = field(default_factory=list)
    """Clients that attached before the start; handed to the runtime when there is a container."""
    restart: asyncio.Task[None] | None = None
    """A restart that waits for its back-off."""
    back_off: float = 0.0
    started_monotonic: float = 0.0
    restarting: bool = False
    """A user's restart is under way: the end in its middle removes nothing."""
    stopping: bool = False
    """A user's stop, kill or restart is under way: the restart policy keeps out."""
    probing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a health check's probe runs."""
    graph: dict[str, str] | None = None
    """What the storage driver said of the container's layer, which does not change."""
    rendered: dict[object, Any] = field(default_factory=dict)
    """What the API has made of the record, by keys of its own; emptied when the record changes."""


class Catalog:
    """Used in the event loop's thread only."""

    def __init__(self, settings: EngineSettings, metadata: Metadata) -> None:
        self._metadata = metadata
        self._root = settings.data_root / "containers"
        self._records: dict[str, Container] = {}
        self._by_name: dict[str, str] = {}
        self._live: dict[str, Live] = {}

    def load(self) -> None:
        """Read the store, at start."""
        for document in self._metadata.all(TABLE).values():
            container = Container.model_validate_json(document)
            self._records[container.id] = container
            self._by_name[container.name] = container.id

    def __iter__(self) -> Iterator[Container]:
        return iter(list(self._records.values()))

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, id: str) -> bool:
        return id in self._records

    def get(self, ref: str) -> Container:
        """By full id, name (with or without its slash), or unique prefix of an id.

        Errors: NotFound, InvalidArgument (ambiguous).
        """
        record = self._records.get(ref)
        if record is not None:
            return record
        match = self._by_name.get(ref.removeprefix("/"))
        if match is None or match not in self._records:
            match = by_prefix(self._records, ref)
        if match is None:
            raise NotFound(f"No such container: {ref}")
        return self._records[match]

    def live(self, container: Container) -> Live:
        live = self._live.get(container.id)
        if live is None:
            live = self._live[container.id] = Live()
        return live

    def folder(self, container: Container) -> Path:
        """The container's own folder in the data root: hosts, hostname, resolv.conf, its log."""
        return self._root / container.id

    def facts(self, container: Container) -> ContainerFacts:
        return container.facts(self.folder(container))

    # ---- names

    def name_taken(self, name: str) -> bool:
        return name in self._by_name

    def claim_name(self, name: str, id: str) -> None:
        """Errors: Conflict with Docker's text."""
        owner = self._by_name.get(name)
        if owner is not None:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{owner}". You have to remove '
                "(or rename) that container to be able to reuse that name."
            )
        self._by_name[name] = id

    def release_name(self, name: str, id: str) -> None:
        if self._by_name.get(name) == id:
            del self._by_name[name]

    # ---- changes

    async def save(self, container: Container) -> None:
        """Make the record durable; it is listed from now on. Called after each change of it."""
        rendered = self.live(container).rendered
        rendered.clear()
        try:
            await self._metadata.put(TABLE, container.id, container.model_dump_json())
        finally:
            rendered.clear()  # a change that could not be recorded is taken back
        self._records[container.id] = container

    async def drop(self, container: Container) -> Live | None:
        """The container is gone; who waits for that is still to be answered."""
        await self._metadata.delete(TABLE, container.id)
        self._records.pop(container.id, None)
        self.release_name(container.name, container.id)
        return self._live.pop(container.id, None)
