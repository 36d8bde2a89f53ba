"""Removing a container: its writable layer, log, folder, anonymous volumes, record. Repeatable until the record is gone."""

from __future__ import annotations

import asyncio
import logging
import shutil
from dataclasses import dataclass, field

from wharfie.engine.actions import Actions
from wharfie.engine.containers.catalog import Catalog, Live
from wharfie.engine.containers.start import container_attributes
from wharfie.engine.events import Events
from wharfie.engine.model.container import Container
from wharfie.engine.volumes import Volumes
from wharfie.plugins.debts import Debts
from wharfie.plugins.drivers import Drivers
from wharfie.spi.errors import Conflict, WharfieError
from wharfie.spi.log import LogDriver
from wharfie.spi.storage import StorageDriver

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Remover:
    catalog: Catalog
    volumes: Volumes
    drivers: Drivers
    events: Events
    debts: Debts
    actions: Actions
    _under_way: set[str] = field(default_factory=set)

    def under_way(self, container: Container) -> bool:
        return container.id in self._under_way

    def claim(self, container: Container) -> None:
        """From now on this removal is the only one. Errors: Conflict."""
        if container.id in self._under_way:
            raise Conflict(f"removal of container {container.name} is already in progress")
        self._under_way.add(container.id)

    def unclaim(self, container: Container) -> None:
        self._under_way.discard(container.id)

    async def remove_ended(self, container: Container, *, volumes: bool = True) -> None:
        """Claim and remove a container that does not run."""
        self.claim(container)
        try:
            await self.remove(container, volumes=volumes)
        finally:
            self.unclaim(container)

    async def remove(self, container: Container, *, volumes: bool) -> None:
        """The caller has claimed it. `volumes`: anonymous ones too. Errors: WharfieError; the record then stays."""
        async with self.catalog.live(container).lock:
            with self.actions.timed("container", "delete"):
                live = await self._remove(container)
        self.events.emit("container", "destroy", container.id, container_attributes(container))
        if volumes:
            await self._remove_volumes(container)
        if live is not None:
            live.waiting.removed(container.state.exit_code)

    async def _remove(self, container: Container) -> Live | None:
        container.state.status = "removing"
        # What cannot be removed now is owed and tried again; the container is gone for its user all the same.
        await self.debts.settle(StorageDriver, container.storage_driver, StorageDriver.remove, container.id)
        await self._remove_log(container)
        await asyncio.to_thread(shutil.rmtree, self.catalog.folder(container), ignore_errors=True)
        return await self.catalog.drop(container)

    async def _remove_log(self, container: Container) -> None:
        try:
            driver = await self.drivers.get(LogDriver, container.log_driver)
            await driver.call(LogDriver.remove, self.catalog.facts(container), container.log_options)
        except WharfieError as error:
            log.warning("%s: its log is not removed: %s", container.name, error)

    async def _remove_volumes(self, container: Container) -> None:
        for mount in container.mounts:
            if mount.type != "volume" or not mount.anonymous or self.volumes.users(mount.name):
                continue
            try:
                await self.volumes.remove(mount.name, force=True)
            except WharfieError as error:
                log.warning("%s: anonymous volume %s is not removed: %s", container.name, mount.name, error)
