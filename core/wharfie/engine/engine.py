"""The engine: every room put together, opened and closed in the right order."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from wharfie.engine.actions import Actions
from wharfie.engine.containers.catalog import Catalog
from wharfie.engine.containers.checkpoints import Checkpoints
from wharfie.engine.containers.commit import Commits
from wharfie.engine.containers.connecting import Connecting
from wharfie.engine.containers.containers import Containers
from wharfie.engine.containers.create import Creator
from wharfie.engine.containers.ending import Ending
from wharfie.engine.containers.files import Files
from wharfie.engine.containers.health import HealthChecks
from wharfie.engine.containers.output import Output
from wharfie.engine.containers.removal import Remover
from wharfie.engine.containers.start import Starter, container_attributes
from wharfie.engine.containers.stopping import Stopper
from wharfie.engine.events import Events
from wharfie.engine.execs import Execs
from wharfie.engine.files.backup import Backup
from wharfie.engine.files.copying import Copying
from wharfie.engine.images.images import Images
from wharfie.engine.networks.endpoints import Endpoints
from wharfie.engine.networks.names import Names
from wharfie.engine.networks.networks import Networks
from wharfie.engine.networks.publishing import Publishing
from wharfie.engine.networks.relaying import Relaying
from wharfie.engine.recovery import Recovery
from wharfie.engine.settings import EngineSettings
from wharfie.engine.system import System
from wharfie.engine.volumes import Volumes
from wharfie.plugins.debts import Debts
from wharfie.plugins.drivers import Drivers
from wharfie.spi.driver import DriverEvent, HostFacts
from wharfie.spi.errors import WharfieError
from wharfie.spi.runtime import Detached, ExecExited, Exit, Exited, Lost, OutOfMemory
from wharfie.spi.storage import StorageDriver
from wharfie.store.content import ContentStore
from wharfie.store.metadata import Metadata

log = logging.getLogger(__name__)

_LOST_CODE = 137  # the container was killed with the process beside it


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    settings: EngineSettings
    drivers: Drivers
    containers: Containers
    commits: Commits
    connecting: Connecting
    copying: Copying
    backup: Backup
    execs: Execs
    health: HealthChecks
    images: Images
    networks: Networks
    volumes: Volumes
    events: Events
    system: System
    ending: Ending
    debts: Debts
    metadata: Metadata
    publishing: Publishing
    actions: Actions
    background: set[asyncio.Task[None]]

    @classmethod
    async def open(cls, settings: EngineSettings, drivers: Drivers, host: HostFacts) -> Engine:
        """Read the store, recover, start what must run. Errors: DataLoss (the store is damaged)."""
        metadata = Metadata(settings.data_root / "metadata.db")
        events, actions = Events(), Actions()
        catalog = Catalog(settings, metadata)
        storage_driver = _storage_driver(settings, drivers)
        networks = Networks(settings, metadata, drivers, events, lambda: catalog)
        volumes = Volumes(settings, metadata, drivers, events, lambda: catalog)
        names = Names(settings.exec_root / "names")
        relaying = Relaying(settings.exec_root, enabled=settings.userland_proxy)
        endpoints = Endpoints(networks, names, Publishing(networks, relaying), events, actions)
        debts = Debts(metadata, drivers)
        images = Images(
            metadata,
            ContentStore(settings.data_root / "content"),
            drivers,
            events,
            storage_driver=storage_driver,
            registry_drivers=settings.registries,
            default_registry=settings.registry_driver,
            max_concurrent_downloads=settings.max_concurrent_downloads,
            max_concurrent_uploads=settings.max_concurrent_uploads,
            max_download_attempts=settings.max_download_attempts,
            containers_using=lambda image: [container for container in catalog if container.uses_image(image)],
        )
        creator = Creator(
            settings=settings,
            host=host,
            catalog=catalog,
            images=images,
            networks=networks,
            volumes=volumes,
            drivers=drivers,
            storage_driver=storage_driver,
        )
        files = Files(settings=settings, catalog=catalog, networks=networks, names=names)
        starter = Starter(
            settings=settings,
            host=host,
            catalog=catalog,
            endpoints=endpoints,
            files=files,
            volumes=volumes,
            drivers=drivers,
            events=events,
            actions=actions,
        )
        remover = Remover(catalog=catalog, volumes=volumes, drivers=drivers, events=events, debts=debts, actions=actions)
        ending = Ending(
            settings=settings,
            catalog=catalog,
            endpoints=endpoints,
            volumes=volumes,
            drivers=drivers,
            events=events,
            starter=starter,
            remover=remover,
        )
        execs = Execs(settings, catalog, drivers, events)
        health = HealthChecks(catalog=catalog, execs=execs, events=events)
        containers = Containers(
            catalog=catalog,
            creator=creator,
            starter=starter,
            stopper=Stopper(catalog=catalog, ending=ending, drivers=drivers, events=events),
            ending=ending,
            remover=remover,
            output=Output(catalog=catalog, drivers=drivers, events=events),
            checkpoints=Checkpoints(catalog=catalog, health=health, drivers=drivers, events=events),
            endpoints=endpoints,
            networks=networks,
            images=images,
            drivers=drivers,
            events=events,
            actions=actions,
        )
        copying = Copying(
            settings=settings, catalog=catalog, volumes=volumes, drivers=drivers, events=events, actions=actions
        )
        engine = cls(
            settings=settings,
            drivers=drivers,
            containers=containers,
            commits=Commits(catalog=catalog, images=images, drivers=drivers, events=events, actions=actions),
            connecting=Connecting(catalog=catalog, networks=networks, endpoints=endpoints, files=files),
            copying=copying,
            backup=Backup(copying=copying, volumes=volumes, containers=containers, events=events, metadata=metadata),
            execs=execs,
            health=health,
            images=images,
            networks=networks,
            volumes=volumes,
            events=events,
            system=System(
                settings=settings,
                host=host,
                containers=containers,
                images=images,
                volumes=volumes,
                drivers=drivers,
                events=events,
                storage_driver=storage_driver,
            ),
            ending=ending,
            debts=debts,
            metadata=metadata,
            publishing=endpoints.publishing,
            actions=actions,
            background=set(),
        )
        recovery = Recovery(
            settings=settings,
            catalog=catalog,
            containers=containers,
            ending=ending,
            endpoints=endpoints,
            health=health,
            names=names,
            networks=networks,
            volumes=volumes,
            images=images,
            drivers=drivers,
            storage_driver=storage_driver,
        )
        await engine._open(recovery)
        return engine

    async def _open(self, recovery: Recovery) -> None:
        await self.drivers.start()
        self.events.observe(self.drivers.hooks.on_event)
        self.health.follow()
        self.containers.catalog.load()
        await self.networks.open()
        await self.volumes.open()
        await self.images.open()
        self.drivers.listen(self._on_driver_event)
        self.drivers.on_restart(recovery.tell_restarted)
        await recovery.recover()
        await self.backup.recover()
        await self.networks.make_predefined()
        self.background.add(asyncio.get_running_loop().create_task(self.debts.run()))
        await recovery.start_wanted()

    def _on_driver_event(self, kind: str, name: str, event: DriverEvent) -> None:
        """What drivers say unasked. The ends of containers are dealt with one after the other for each container."""
        if isinstance(event, ExecExited):
            self.execs.ended(event.id, event.exec_id, event.exit)
            self.ending.later(self.execs.let_go(event.id, event.exec_id), f"the end of exec {event.exec_id}")
        elif isinstance(event, Exited):
            self._ended(event.id, event.exit)
        elif isinstance(event, Lost):
            log.error("the process beside container %s was killed, and the container with it", event.id)
            self._ended(event.id, Exit(code=_LOST_CODE, at_ns=time.time_ns()))
        elif event_id := getattr(event, "id", ""):
            self._note(event_id, event)

    def _ended(self, id: str, exit: Exit) -> None:
        catalog = self.containers.catalog
        if id in catalog:
            self.execs.container_ended(id)
            container = catalog.get(id)
            self.ending.later(self.ending.ended(container, exit), f"the end of container {container.name}")

    def _note(self, id: str, event: DriverEvent) -> None:
        catalog = self.containers.catalog
        if id not in catalog:
            return
        container = catalog.get(id)
        if isinstance(event, OutOfMemory):
            container.state.oom_killed = True
            self.events.emit("container", "oom", id, container_attributes(container))
        elif isinstance(event, Detached):
            action = "exec_detach" if event.exec_id else "detach"
            self.events.emit("container", action, id, container_attributes(container))

    async def shutdown(self) -> None:
        """Stop the containers (with live-restore they go on), then close everything. Nothing is restarted."""
        self.ending.closing = True
        self.health.close()
        running = [container for container in self.containers.catalog if container.state.running]
        if not self.settings.live_restore:
            await self._stop_all()
            await self.ending.settle()
            if not any(container.state.running for container in self.containers.catalog):
                await self.networks.tear_down()
        elif not running:
            await self.networks.tear_down()
        for task in self.background:
            task.cancel()
        await asyncio.gather(*self.background, return_exceptions=True)
        await self.images.close()
        self.copying.close()
        await self.drivers.close()
        self.publishing.close()
        self.metadata.close()

    async def _stop_all(self) -> None:
        """All at once, each with its own patience, at most `shutdown-timeout` unless one asks for more."""

        async def stop(id: str, timeout: int | None) -> None:
            try:
                await self.containers.stop(id, timeout=timeout, for_shutdown=True)
            except WharfieError as error:
                log.error("container %s: %s", id, error)

        limit = self.settings.shutdown_timeout
        stops = []
        for container in self.containers.catalog:
            if container.state.running or container.state.status == "restarting":
                own = container.config.stop_timeout
                usual = min(self.settings.default_stop_timeout, limit) if limit >= 0 else -1
                stops.append(stop(container.id, usual if own is None else own))
        await asyncio.gather(*stops)


def _storage_driver(settings: EngineSettings, drivers: Drivers) -> str:
    """The configured storage driver; else the first of Docker's order that is installed."""
    if settings.storage_driver:
        return settings.storage_driver
    installed = drivers.known(StorageDriver)
    return next((name for name in ("overlay2", "vfs") if name in installed), "overlay2")
