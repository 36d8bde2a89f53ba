"""After a start: what the daemon wanted (the store) and what is (shims, kernel, disk) are brought together.

The order matters: first which containers run, so that nothing of theirs is taken for a leftover; then the drivers make
their world agree; then the ends that were missed are dealt with; last, what must run is started.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from dataclasses import dataclass

from wharfie.engine.containers.catalog import Catalog
from wharfie.engine.containers.containers import Containers
from wharfie.engine.containers.ending import Ending
from wharfie.engine.containers.health import HealthChecks
from wharfie.engine.containers.staging import clear_staged
from wharfie.engine.images.images import Images
from wharfie.engine.model.container import Container
from wharfie.engine.networks.endpoints import Endpoints, forget_joined
from wharfie.engine.networks.names import Names
from wharfie.engine.networks.networks import Networks
from wharfie.engine.settings import EngineSettings
from wharfie.engine.volumes import Volumes
from wharfie.plugins.drivers import Drivers
from wharfie.spi.errors import WharfieError
from wharfie.spi.runtime import ContainerState, Exit, RuntimeDriver
from wharfie.spi.storage import StorageDriver

log = logging.getLogger(__name__)

LOST_EXIT_CODE = 255
"""Of a container that ran when the host went down: Docker's code for an unknown end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    settings: EngineSettings
    catalog: Catalog
    containers: Containers
    ending: Ending
    endpoints: Endpoints
    health: HealthChecks
    names: Names
    networks: Networks
    volumes: Volumes
    images: Images
    drivers: Drivers
    storage_driver: str

    async def recover(self) -> None:
        """Bring both together. A driver that fails is logged: what it holds is unusable, all else goes on."""
        try:
            await asyncio.to_thread(clear_staged, self.settings.staging)
        except OSError as error:
            log.error("mounts of a start that was cut off stay: %s", error)
        found = await self._found()
        running: list[Container] = []
        missed: list[tuple[Container, Exit]] = []
        for container in self.catalog:
            _, state = found.pop(container.id, ("", None))
            if not container.state.running:
                await self._clear_leftovers(container, state)
            elif state is not None and state.status in ("running", "paused"):
                await self._adopt(container, state)
                running.append(container)
            else:
                missed.append((container, _exit_of(state)))
        for runtime, stranger in found.values():
            await self._delete(stranger.id, runtime)
        await self._reconcile(running)
        await self.endpoints.publishing.open()
        for container in running:
            await self.endpoints.adopt(container)
            self.health.adopt(container)
        await self.endpoints.publishing.settle()
        self._clear_files(running, [container for container, _ in missed])
        for container, end in missed:
            await self.ending.ended(container, end)
        await self._remove_half_removed()

    async def _found(self) -> dict[str, tuple[str, ContainerState]]:
        """Containers of all runtimes that may have some, by id, with the runtime's name."""
        names = {container.runtime for container in self.catalog}
        if (self.settings.exec_root / "bundles").exists():
            names.add(self.settings.default_runtime)
        found: dict[str, tuple[str, ContainerState]] = {}
        for name in names & set(self.drivers.known(RuntimeDriver)):
            try:
                runtime = await self.drivers.get(RuntimeDriver, name)
                found.update((state.id, (name, state)) for state in await runtime.call(RuntimeDriver.containers))
            except WharfieError as error:
                log.error('runtime "%s" cannot say which containers it has: %s', name, error)
        return found

    async def _adopt(self, container: Container, state: ContainerState) -> None:
        paused = state.status == "paused"
        if paused and (container.state.in_passing or container.state.status == "running"):
            paused = not await self._resume(container)
        container.state.in_passing = False
        container.state.pid = state.pid
        container.state.status = "paused" if paused else "running"
        self.catalog.live(container).started_monotonic = time.monotonic()
        log.info("container %s runs on (pid %d)", container.name, state.pid)

    async def _resume(self, container: Container) -> bool:
        """Send on what stood still for an operation that a crash cut off; a pause that the user asked for is on record."""
        try:
            runtime = await self.drivers.get(RuntimeDriver, container.runtime)
            await runtime.call(RuntimeDriver.resume, container.id)
        except WharfieError as error:
            log.error("container %s stands still since the daemon's end and cannot be sent on: %s", container.name, error)
            return False
        return True

    async def _clear_leftovers(self, container: Container, state: ContainerState | None) -> None:
        """A start that a crash cut off: the record says it never ran, so whatever is there of it goes."""
        if state is not None:
            await self._delete(container.id, container.runtime)
        forget_joined(container)
        if container.state.status == "restarting":
            container.state.status = "exited"

    async def _delete(self, id: str, runtime_name: str) -> None:
        try:
            runtime = await self.drivers.get(RuntimeDriver, runtime_name)
            await runtime.call(RuntimeDriver.delete, id, force=True)
        except WharfieError as error:
            log.error("what is left of container %s cannot be removed: %s", id, error)

    async def _reconcile(self, running: list[Container]) -> None:
        await self.networks.reconcile(running)
        await self.volumes.reconcile(running)
        if self.storage_driver not in self.drivers.known(StorageDriver):
            return
        wanted = frozenset({container.id for container in self.catalog} | self.images.wanted_layers())
        try:
            storage = await self.drivers.get(StorageDriver, self.storage_driver)
            for fault in await storage.call(StorageDriver.reconcile, wanted):
                log.error("storage: %s: %s", fault.object, fault.reason)
        except WharfieError as error:
            log.error('storage driver "%s" cannot be brought up to date: %s', self.storage_driver, error)

    def _clear_files(self, running: list[Container], missed: list[Container]) -> None:
        """Folders and name tables of containers that are gone. A runtime needs the bundle of one that has ended to remove
        what is left of it."""
        ids = {container.id for container in running}
        networks = {entry.network_id for container in running for entry in container.joined}
        self.names.clear_strangers(networks, ids)
        for root, kept in (
            (self.settings.exec_root / "bundles", ids | {container.id for container in missed}),
            (self.settings.data_root / "containers", {container.id for container in self.catalog}),
        ):
            if root.exists():
                for folder in root.iterdir():
                    if folder.name not in kept:
                        shutil.rmtree(folder, ignore_errors=True)

    async def _remove_half_removed(self) -> None:
        for container in self.catalog:
            ended = not container.state.running and container.state.status != "created"
            if container.state.status in ("removing", "dead") or (container.host_config.auto_remove and ended):
                try:
                    await self.containers.remover.remove_ended(container)
                except WharfieError as error:
                    log.error("container %s cannot be removed: %s", container.name, error)

    async def tell_restarted(self, kind: str, name: str) -> None:
        """A driver's own process was started again, in the middle of the daemon's life: tell it what holds.

        Containers that are being started count as running ones. A storage driver is told nothing: its truth is on the
        disk, and what is being made there now is wanted although no record names it yet.
        """
        busy = [one for one in self.catalog if one.state.running or self.catalog.live(one).lock.locked()]
        if kind == "network":
            await self.networks.reconcile_driver(name, busy)
        elif kind == "ipam":
            await self.networks.reconcile_ipam(name, busy)
        elif kind == "volume":
            await self.volumes.reconcile(busy, only=name)
        elif kind == "runtime":
            await self._missed_ends(name)

    async def _missed_ends(self, name: str) -> None:
        """Events went to a process that was not there."""
        runtime = await self.drivers.get(RuntimeDriver, name)
        found = {state.id: state for state in await runtime.call(RuntimeDriver.containers)}
        for container in self.catalog:
            if container.runtime != name or not container.state.running or self.catalog.live(container).lock.locked():
                continue
            state = found.get(container.id)
            if state is None or state.status == "stopped":
                end = _exit_of(state)
                self.ending.later(self.ending.ended(container, end), f"the end of container {container.name}")

    async def start_wanted(self) -> None:
        """Start the containers whose restart policy says that they run after a daemon start."""
        for container in self.catalog:
            if container.state.status == "exited" and _runs_again(container):
                try:
                    await self.containers.start(container.id)
                except WharfieError as error:
                    log.error("container %s is not restarted: %s", container.name, error)


def _runs_again(container: Container) -> bool:
    """Whether the restart policy starts the container with the daemon. "always" even after a manual stop."""
    policy = container.host_config.restart_policy
    if policy.name == "always":
        return True
    if container.manually_stopped:
        return False
    failed = container.state.exit_code != 0
    return policy.name == "unless-stopped" or (policy.name == "on-failure" and failed)


def _exit_of(state: ContainerState | None) -> Exit:
    if state is not None and state.exit is not None:
        return state.exit
    return Exit(code=LOST_EXIT_CODE if state is None else 137, at_ns=time.time_ns())
