"""Connecting a container to a network and disconnecting it, running or not (`POST /networks/{id}/connect`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wharfie.engine.containers.catalog import Catalog
from wharfie.engine.containers.files import Files
from wharfie.engine.containers.networking import check_connect
from wharfie.engine.model.container import Container, NetworkRecord
from wharfie.engine.model.network import EndpointSettings
from wharfie.engine.networks.endpoints import Endpoints
from wharfie.engine.networks.networks import Networks
from wharfie.spi.errors import InvalidArgument, NotFound, WharfieError
from wharfie.spi.network import Sandbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Connecting:
    catalog: Catalog
    networks: Networks
    endpoints: Endpoints
    files: Files

    async def connect(self, ref: str, container_ref: str, settings: EndpointSettings) -> None:
        """Errors: NotFound, InvalidArgument, Forbidden (connected already), and what the drivers say."""
        record = self.networks.get(ref)
        container = self.catalog.get(container_ref)
        async with self.catalog.live(container).lock:
            check_connect(container, record, settings)
            settings.network_id = record.id
            container.networks[record.name] = settings
            try:
                if container.state.running:
                    sandbox = Sandbox(id=container.sandbox_id, path=Path(f"/proc/{container.state.pid}/ns/net"))
                    facts = self.catalog.facts(container)
                    await self.endpoints.connect(container, record, facts, sandbox)
                    self.files.refresh(container)
                await self.catalog.save(container)
            except WharfieError:
                container.networks.pop(record.name, None)
                raise

    async def disconnect(self, ref: str, container_ref: str, force: bool) -> None:
        """`force`: also when the container is gone. Errors: NotFound, InvalidArgument, WharfieError (not connected)."""
        record = self.networks.get(ref)
        if record.name == "host":
            raise InvalidArgument("container cannot be disconnected from host network or connected to host network")
        try:
            container = self.catalog.get(container_ref)
        except NotFound:
            if force:
                raise NotFound(f"endpoint {container_ref} not found") from None
            raise
        async with self.catalog.live(container).lock:
            await self._disconnect(container, record)

    async def _disconnect(self, container: Container, record: NetworkRecord) -> None:
        if record.name not in container.networks:
            raise WharfieError(f"container {container.id} is not connected to network {record.name}")
        if any(entry.network_id == record.id for entry in container.joined):
            await self.endpoints.disconnect(container, record)
            self.files.refresh(container)
        del container.networks[record.name]
        await self.catalog.save(container)
